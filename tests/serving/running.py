"""The whole service, in front of a model server on loopback: the real application behind a real server."""

import asyncio
import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, nullcontext
from pathlib import Path

import uvicorn
from opentelemetry.trace import Tracer
from pydantic import SecretStr

from serving.app import create_app
from serving.http.state import ServicePort
from tests.fakes import NOW
from trendrag.settings import ModelSettings, Settings, default_data_dir

KEY = "model-key-1234567890"
PHOTO = Path(__file__).parents[1] / "photos" / "coffee.jpg"


def settings_for(settings: Settings, base_url: str, **model: object) -> Settings:
    """That write with the server at ``base_url``. The weights of retrieval are there; trends are not."""
    settings.data_dir.mkdir(exist_ok=True)
    if not settings.models_dir.exists():
        settings.models_dir.symlink_to(default_data_dir() / "models")
    chosen = {"provider": "openai", "base_url": base_url, "name": "tiny", "api_key": SecretStr(KEY)}
    patient = {"connect_timeout_s": 60, **model}
    return settings.model_copy(update={"model": ModelSettings.model_validate(chosen | patient)})


@asynccontextmanager
async def the_app(settings: Settings, service: ServicePort, tracer: Tracer | None = None) -> AsyncIterator[str]:
    """Where it listens."""
    app = create_app(settings, lambda _: nullcontext(service), lambda: NOW, tracer=tracer)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        server = uvicorn.Server(uvicorn.Config(app, lifespan="on", log_config=None, timeout_graceful_shutdown=5))
        running = asyncio.create_task(server.serve([listening]))
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            await running


def asked_for(note: str | None = None, **fields: object) -> dict[str, object]:
    return {"image": base64.b64encode(PHOTO.read_bytes()).decode(), **({"note": note} if note else {}), **fields}
