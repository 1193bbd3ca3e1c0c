"""Scenes: what photos show that a trend would fit, in other words, written by a model when trends are collected.

A photo of a thermos beside a frozen lake shares no word with "cold plunge clubs". So a model is asked once for each
new trend when a photo would fit it, and its answers are embedded as further vectors of the trend: nobody waits for that
while a caption is written.

What was written is kept by what the trend says, the model and the question, so that it is paid for once. A refresh has
a budget of trends and seconds, spent on the strongest first; whatever has not been written by then, or failed, is tried
at the next. The model's text is untrusted: it is cleaned like a source's, embedded, and shown to nobody.
"""

import asyncio
import hashlib
import json
import logging
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import httpx2
from pydantic import BaseModel, ConfigDict, SecretStr, ValidationError

from indexes.segments import Keys, Load, Rows, content_of
from trendrag.endpoint import checked_base_url, checked_key, through_proxy
from trendrag.errors import ConfigurationError, ModelError
from trendrag.settings import ModelSettings, Settings
from trendrag.text import clean_line
from trendrag.types import Trend

if TYPE_CHECKING:
    from langchain_openai import ChatOpenAI

logger = logging.getLogger(__name__)

STRONGEST = 5_000
"""Trends that scenes are looked up and written for, the strongest ones. It bounds what a refresh costs without any
being new, since all of these are read."""

COUNT = 3
MAX_CHARS = 120
KEEP_DAYS = 30
"""Scenes that no trend asked for in so long are forgotten."""

AT_ONCE = 4
GIVE_UP = 3
"""Calls that fail one after the other, after which a refresh asks no more."""

_MAX_PHRASE, _MAX_SUMMARY = 80, 300
_MAX_TOKENS = 64 * COUNT
_BATCH = 500  # SQLite limits the variables of one statement
_SCHEMA = """
    CREATE TABLE IF NOT EXISTS scenes (asked BLOB PRIMARY KEY, scenes TEXT NOT NULL, used TEXT NOT NULL) WITHOUT ROWID
"""


class Pen(Protocol):
    """Who writes scenes. ``name`` is the model's; another one's scenes are other scenes."""

    @property
    def name(self) -> str: ...

    async def write(self, question: str) -> str:
        """The model's whole answer.

        Raises:
            ModelError: it gave none. The message holds no secret.
        """


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one refresh: how many trends the model is asked about, and how long that may take."""

    trends: int
    seconds: float


class Scenes:
    """The scenes of trends: those written before, from an SQLite ``file``, and those that ``pen`` writes now."""

    def __init__(self, pen: Pen, file: Path, budget: Budget) -> None:
        self._pen = pen
        self._file = file
        self._budget = budget

    async def of(self, trends: Sequence[Trend]) -> list[tuple[str, ...]]:
        """Those of each, at most ``COUNT``, none where there are none yet. The first are the first to be written for.

        Never raises for what the model does. Cancelling it keeps what was written by then.
        """
        questions = [question(trend) for trend in trends]
        asked = [self._key(text) for text in questions]
        known = await asyncio.to_thread(self._read, list(dict.fromkeys(asked)))
        missing = {key: text for key, text in zip(asked, questions, strict=True) if key not in known}
        written: dict[bytes, tuple[str, ...]] = {}
        try:
            await self._write(dict(list(missing.items())[: self._budget.trends]), written)
        finally:
            if written:
                self._keep(written)  # some milliseconds; a thread would be left behind by a second cancellation
        known |= written
        return [known.get(key, ()) for key in asked]

    async def _write(self, missing: Mapping[bytes, str], written: dict[bytes, tuple[str, ...]]) -> None:
        """Has scenes written into ``written`` until all is done, time is up, or the server has failed too often."""
        waiting = iter(missing.items())
        failures: list[ModelError] = []  # since the last answer

        async def work() -> None:
            for key, text in waiting:
                try:
                    answer = await self._pen.write(text)
                except ModelError as error:
                    failures.append(error)
                    if len(failures) >= GIVE_UP:
                        return
                else:
                    failures.clear()
                    if scenes := read_answer(answer):
                        written[key] = scenes

        why = "time was up"
        try:
            async with asyncio.timeout(self._budget.seconds), asyncio.TaskGroup() as group:
                for _ in range(min(AT_ONCE, len(missing))):
                    group.create_task(work())
        except TimeoutError:
            pass
        else:
            why = str(failures[-1]) if failures else "no use could be made of the answers"
        if wait := len(missing) - len(written):
            logger.warning("%d trends wait for the next refresh to have scenes: %s", wait, why)

    def _key(self, text: str) -> bytes:
        return hashlib.sha256(f"{self._pen.name}\n{text}".encode("utf-8", "surrogatepass")).digest()

    def _read(self, keys: Sequence[bytes]) -> dict[bytes, tuple[str, ...]]:
        found: dict[bytes, tuple[str, ...]] = {}
        try:
            self._file.parent.mkdir(parents=True, exist_ok=True)
            with closing(sqlite3.connect(self._file)) as database, database:
                database.execute(_SCHEMA)
                database.execute("DELETE FROM scenes WHERE used < date('now', ?)", [f"-{KEEP_DAYS} days"])
                for start in range(0, len(keys), _BATCH):
                    batch = keys[start : start + _BATCH]
                    where = f"asked IN ({','.join('?' * len(batch))})"  # question marks only
                    again = f"{where} AND used <> date('now')"
                    database.execute(f"UPDATE scenes SET used = date('now') WHERE {again}", batch)  # noqa: S608
                    rows = database.execute(f"SELECT asked, scenes FROM scenes WHERE {where}", batch)  # noqa: S608
                    found |= {key: tuple(json.loads(scenes)) for key, scenes in rows}
        except (sqlite3.Error, OSError, ValueError) as error:
            logger.warning("the scenes in %s can't be read: %s", self._file, error)
        return found

    def _keep(self, written: Mapping[bytes, Sequence[str]]) -> None:
        rows = [(key, json.dumps(scenes, ensure_ascii=False)) for key, scenes in written.items()]
        try:
            with closing(sqlite3.connect(self._file)) as database, database:
                database.executemany("INSERT OR REPLACE INTO scenes VALUES (?, ?, date('now'))", rows)
        except (sqlite3.Error, OSError) as error:
            logger.warning("the scenes in %s can't be written: %s", self._file, error)


async def staged(scenes: Scenes, rows: Rows, load: Load) -> tuple[Rows, Load]:
    """``rows`` (the strongest first) and ``load`` of the same trends with their scenes."""
    strongest = rows["key"][:STRONGEST]
    trends = await asyncio.to_thread(load, strongest)
    found = dict(zip(strongest.tolist(), await scenes.of(trends), strict=True))
    rows = rows.copy()
    for place, trend in enumerate(trends):
        if of_it := found[int(strongest[place])]:
            rows["content"][place] = content_of(trend.model_copy(update={"scenes": of_it}))

    def load_staged(keys: Keys) -> Sequence[Trend]:
        loaded = zip(keys.tolist(), load(keys), strict=True)
        return [trend.model_copy(update={"scenes": found.get(key, ())}) for key, trend in loaded]

    return rows, load_staged


def question(trend: Trend) -> str:
    """What the model is asked. Cleaned here, whatever was done before: a closed fence would end the material."""
    phrase, summary = clean_line(trend.phrase, _MAX_PHRASE), clean_line(trend.summary, _MAX_SUMMARY)
    return _prompt().format(trend=f"{phrase}: {summary}" if summary else phrase, count=COUNT)


@cache
def _prompt() -> str:
    return files("ingest").joinpath("scenes.txt").read_text("utf-8").removesuffix("\n")


class _Answer(BaseModel):
    model_config = ConfigDict(strict=True)

    scenes: list[str]


def read_answer(answer: str) -> tuple[str, ...]:
    """The scenes of an answer: a line each, without markup, controls or repetitions. None where it is another thing."""
    try:
        told = _Answer.model_validate_json(answer[answer.find("{") : answer.rfind("}") + 1]).scenes
    except ValidationError:
        return ()
    lines = (clean_line(scene, MAX_CHARS) for scene in told)
    return tuple(dict.fromkeys(line for line in lines if any(char.isalpha() for char in line)))[:COUNT]


def answer_format() -> dict[str, object]:
    """Binds an answer, on servers that take it, to what ``read_answer`` reads."""
    scenes = {"type": "array", "items": {"type": "string"}, "minItems": COUNT, "maxItems": COUNT}
    schema = {"type": "object", "properties": {"scenes": scenes}, "required": ["scenes"], "additionalProperties": False}
    return {"type": "json_schema", "json_schema": {"name": "scenes", "strict": True, "schema": schema}}


class ChatPen:
    """``Pen`` by a model behind an OpenAI-compatible server."""

    def __init__(self, model: "ChatOpenAI") -> None:
        self._model = model
        self.name = model.model_name

    async def write(self, question: str) -> str:
        try:
            answer = await self._model.ainvoke(question)
        except Exception as error:  # noqa: BLE001 - the SDK raises its own, the HTTP client's and LangChain's
            status = getattr(error, "status_code", None)
            # Not quoted: an SDK's message may hold the key.
            raise ModelError(
                f"the model server failed ({type(error).__name__}{f', HTTP {status}' if status else ''}). Check the "
                "TRENDRAG_MODEL__ settings, or set TRENDRAG_INGEST__SCENES=off."
            ) from None
        return str(answer.text)


@asynccontextmanager
async def open_scenes(settings: Settings) -> AsyncIterator[Scenes | None]:
    """What the settings ask for: None where scenes are off. Connects to nothing.

    Raises:
        ConfigurationError: the model's settings can't be used.
    """
    if settings.ingest.scenes == "off":
        yield None
        return
    base_url, key, name = _server(settings.model)
    from langchain_openai import ChatOpenAI  # noqa: PLC0415 - half a second, which most refreshes need not pay

    timeout = httpx2.Timeout(settings.model.token_timeout_s, connect=settings.model.connect_timeout_s)
    async with httpx2.AsyncClient(timeout=timeout, trust_env=through_proxy(base_url)) as client:
        model = ChatOpenAI(
            model=name,
            base_url=base_url,
            api_key=key,
            http_async_client=client,
            timeout=timeout,
            max_retries=0,  # the next refresh is the retry
            temperature=0.0,
            max_tokens=_MAX_TOKENS,
            extra_body={"response_format": answer_format()},
            use_responses_api=False,
            output_version=None,
            openai_proxy=None,
        )
        budget = Budget(settings.ingest.scenes_trends, settings.ingest.scenes_seconds)
        yield Scenes(ChatPen(model), settings.data_dir / "cache" / "scenes.sqlite3", budget)


def _server(settings: ModelSettings) -> tuple[str, SecretStr, str]:
    """Its address, key and model."""
    if settings.provider != "openai":
        raise ConfigurationError(
            "TRENDRAG_INGEST__SCENES=model needs a model server: set TRENDRAG_MODEL__PROVIDER=openai, or scenes to off."
        )
    if not settings.name:
        raise ConfigurationError("TRENDRAG_INGEST__SCENES=model needs TRENDRAG_MODEL__NAME, the model's name.")
    return checked_base_url(settings.base_url), checked_key(settings.api_key), settings.name
