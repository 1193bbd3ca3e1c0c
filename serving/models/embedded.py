"""The embedded engine: llama.cpp inside this process, so that TrendRAG works with nothing but `pip install`.

``xllamacpp`` runs llama.cpp's own OpenAI-compatible server on a free loopback port, behind a key that only this process
knows. This module knows how to load and stop it; prompts and grammars are in ``draft``, the photo's words in
``tagger``. Nothing heavy is imported or loaded before the first use.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from trendrag.errors import ModelError, ModelUnavailable
from trendrag.ports import Judgement
from trendrag.settings import Settings
from trendrag.types import CaptionRequest, RetrievedTrend
from trendrag.weights import path

if TYPE_CHECKING:
    from xllamacpp import Server

    from serving.models.draft import DraftWriter
    from serving.models.tagger import TagDescriber

SLOTS = 4
"""Candidates written at once; more wait in llama.cpp's queue."""

CONTEXT = 4096
"""Tokens, shared by the slots. A draft and its prompt take about 120; of emoji or Chinese, up to 1500."""


START_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the engine listens: ``base_url`` ends in /v1, ``api_key`` goes with each call as a bearer token."""

    base_url: str
    api_key: str


def default_threads() -> int:
    """Half of the cores, at most four. llama.cpp's threads wait for each other in a loop at every layer: one that has
    to share its core holds up all (measured on two busy cores: 2 to 23 tokens/s with two threads, 70 with one)."""
    return max(1, min(4, (os.cpu_count() or 2) // 2))


class EmbeddedEngine:
    """Loads on the first ``start`` and once, from any thread or task. ``close`` may be called at any time.

    Raises:
        WeightsError: by ``start``, where ``model`` came from ``trendrag.weights`` and is missing.
        ModelUnavailable: by ``start``, where llama.cpp can't load the file.
    """

    def __init__(self, models_dir: Path, *, slots: int = SLOTS, threads: int | None = None) -> None:
        self._models_dir = models_dir
        self._slots = slots
        self._threads = threads or default_threads()
        self._lock = threading.Lock()
        self._server: Server | None = None
        self._endpoint: Endpoint | None = None

    async def start(self) -> Endpoint:
        """The endpoint, as soon as the model is loaded."""
        endpoint = self._endpoint
        return endpoint if endpoint is not None else await asyncio.to_thread(self._start)

    async def close(self) -> None:
        """Stops the server; a stream that still runs breaks off. A later ``start`` loads again."""
        await asyncio.to_thread(self._close)

    def _start(self) -> Endpoint:
        with self._lock:
            if self._endpoint is None:
                key = secrets.token_urlsafe(24)
                self._server = _load(path("smollm2", self._models_dir), key, self._slots, self._threads)
                self._endpoint = Endpoint(f"{self._server.listening_address}/v1", key)
            return self._endpoint

    def _close(self) -> None:
        with self._lock:
            self._endpoint = None
            self._server = None  # its destructor stops llama.cpp and joins its threads


def _load(model: Path, key: str, slots: int, threads: int) -> "Server":
    import xllamacpp  # noqa: PLC0415  100 MB of machine code, loaded only when a draft is written

    params = xllamacpp.CommonParams()
    params.model.path = str(model)
    params.api_keys = [key]
    params.n_parallel = slots
    params.n_ctx = CONTEXT
    params.kv_unified = True
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = threads
    params.verbosity = -1  # llama.cpp writes to stderr past Python
    params.warmup = False
    params.ui = False
    params.endpoint_slots = False  # it shows other callers' prompts
    params.cors_origins = "null"  # no page in a browser may call it
    try:
        server = xllamacpp.Server(params)
        _wait_for(server.listening_address, key)
    except Exception as error:  # the binding passes on C++ exceptions of several kinds
        raise ModelUnavailable(
            f"The embedded engine can't load {model.name}. Run: trendrag models fetch --verify smollm2"
        ) from error
    return server


def _wait_for(address: str, key: str) -> None:
    """Until the loop of the model answers, as it alone can for its adapters: the server answers /health before that
    has begun. One that is stopped earlier never ends, and holds up all of Python meanwhile: its destructor keeps the
    interpreter's lock."""
    parts = urlsplit(address)
    connection = HTTPConnection(parts.hostname or "", parts.port, timeout=START_TIMEOUT_S)
    try:
        connection.request("GET", "/lora-adapters", headers={"Authorization": f"Bearer {key}"})
        connection.getresponse().read()
    finally:
        connection.close()


class NoJudge:
    """``trendrag.ports.Judge`` where the settings ask for one: this engine has none, and answers say so."""

    async def judge(self, request: CaptionRequest, trends: tuple[RetrievedTrend, ...]) -> Judgement:
        del request, trends
        raise ModelError(
            "The embedded engine can't judge trends. Set TRENDRAG_RETRIEVAL__JUDGE=none, or TRENDRAG_MODEL__PROVIDER "
            "to a model that sees images."
        )


@asynccontextmanager
async def open_embedded(settings: Settings) -> "AsyncIterator[tuple[TagDescriber, DraftWriter]]":
    """A describer and a writer that need no model server. Both load on their first use; leaving stops the engine."""
    from serving.models.draft import DraftWriter  # noqa: PLC0415  langchain-openai and onnxruntime cost a second
    from serving.models.tagger import TagDescriber, Tagger  # noqa: PLC0415

    engine = EmbeddedEngine(settings.models_dir)
    writer = DraftWriter(engine, settings.model)
    try:
        yield TagDescriber(Tagger(settings.models_dir)), writer
    finally:
        await writer.aclose()
        await engine.close()
