"""One real vLLM server for the whole run.

Without TRENDRAG_TEST_VLLM=1 nothing here is collected; with it, nothing skips. `make test-vllm` sets it, and
`make vllm-env` builds what the server runs in.
"""

import io
import os
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from langchain_core.language_models import BaseChatModel
from PIL import Image

from serving.images import prepare_image
from serving.models.openai import close_chat_model, open_chat_model
from tests.fakes import make_trend
from tests.vllm import checkpoint, environment
from tests.vllm.server import MODEL, Vllm, running
from trendrag.settings import ImageSettings, ModelSettings
from trendrag.types import PreparedImage

if os.environ.get("TRENDRAG_TEST_VLLM") != "1":
    collect_ignore_glob = ["test_*.py"]

PYTHON = environment.interpreter()  # read now: the tests run without the developer's TRENDRAG_ variables
LOGS = environment.ROOT / "var" / "vllm-logs"


@pytest.fixture(scope="session")
def vllm_python() -> Path:
    """The interpreter of the vLLM environment."""
    if PYTHON is None:
        pytest.fail("The vLLM environment is missing or out of date. Build it with: make vllm-env", pytrace=False)
    return PYTHON


@pytest.fixture(scope="session")
def vllm_checkpoint(vllm_python: Path) -> Path:
    return checkpoint.made_by(vllm_python)


@pytest.fixture(scope="session")
def vllm(vllm_python: Path, vllm_checkpoint: Path) -> Iterator[Vllm]:
    """A server for all tests. It must be left running, and idle."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with running(vllm_python, vllm_checkpoint, LOGS / "shared.log") as server:
        yield server


@pytest.fixture
def doomed_vllm(vllm_python: Path, vllm_checkpoint: Path) -> Iterator[Vllm]:
    """A server of the test's own, to be killed."""
    LOGS.mkdir(parents=True, exist_ok=True)
    with running(vllm_python, vllm_checkpoint, LOGS / "doomed.log") as server:
        yield server


@pytest.fixture
async def model(vllm: Vllm) -> AsyncIterator[BaseChatModel]:
    """Writes 256 tokens an answer."""
    model = open_chat_model(model_settings(vllm))
    yield model
    await close_chat_model(model)


def model_settings(vllm: Vllm, **changes: object) -> ModelSettings:
    fields: dict[str, object] = {"provider": "openai", "base_url": vllm.base_url, "name": MODEL}
    return ModelSettings.model_validate(fields | changes)


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with the checkout's weights and a snapshot of two trends, last seen just now."""
    from indexes.embedder import open_minilm
    from indexes.publishing import publish

    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "models").symlink_to(environment.ROOT / "var" / "models")
    now = datetime.now(UTC)
    trends = [make_trend(phrase, first_seen=now, last_seen=now) for phrase in ("slow coffee", "world cricket final")]
    embedder = open_minilm(folder / "models")
    publish(folder / "snapshots", trends, embedder, origin="live", recorded_at=now, now=now, keep=1)
    return folder


@pytest.fixture
def photo() -> PreparedImage:
    return prepare_image(unseen_photo(), ImageSettings())


def unseen_photo() -> bytes:
    """A JPEG that no server has seen before: 560 x 448 pixels, 320 tokens of Qwen2.5-VL."""
    buffer = io.BytesIO()
    Image.frombytes("RGB", (40, 32), os.urandom(40 * 32 * 3)).resize((560, 448)).save(buffer, "JPEG")
    return buffer.getvalue()
