"""An archive of records with pictures, and what a run over it has to make of them."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from serving.batch.records import ADDED
from serving.batch.run import Options, Summary, run
from serving.images import prepare_image
from tests.batch.model_server import MODEL, ModelServer, caption_of, picture
from trendrag.settings import BatchSettings, FetchSettings, ImageSettings, ModelSettings, Settings

SYNTHETIC = "Parc Lafontaine. Capturée ou datée de Décennie 1930"
FAST = {"description": SYNTHETIC}


def settings_for(folder: Path, server: ModelServer, **batch: object) -> Settings:
    model = {"provider": "openai", "base_url": server.base_url, "name": MODEL, "api_key": SecretStr("k" * 20)}
    return Settings(
        data_dir=folder / "var",
        model=ModelSettings.model_validate(model),
        fetch=FetchSettings(allow_http=True, allow_private=True, ports=(server.port,)),
        batch=BatchSettings.model_validate(batch),
    )


def environment(folder: Path, server: ModelServer) -> dict[str, str]:
    """The same settings for a process of its own."""
    return {
        "TRENDRAG_DATA_DIR": str(folder / "var"),
        "TRENDRAG_MODEL__PROVIDER": "openai",
        "TRENDRAG_MODEL__BASE_URL": server.base_url,
        "TRENDRAG_MODEL__NAME": MODEL,
        "TRENDRAG_FETCH__ALLOW_HTTP": "true",
        "TRENDRAG_FETCH__ALLOW_PRIVATE": "true",
        "TRENDRAG_FETCH__PORTS": f"[{server.port}]",
    }


def pictures(folder: Path, count: int) -> None:
    folder.mkdir(exist_ok=True)
    for number in range(count):
        (folder / f"{number}.jpg").write_bytes(picture(number))


def record(number: int, **fields: object) -> dict[str, Any]:
    return {"id": f"r{number}", "image_path": f"photos/{number}.jpg", "description": SYNTHETIC, **fields}


def write(path: Path, records: Iterable[dict[str, Any] | bytes]) -> Path:
    lines = (each if isinstance(each, bytes) else json.dumps(each, ensure_ascii=False).encode() for each in records)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path


def read(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def caption(number: int) -> str:
    return caption_of(prepare_image(picture(number), ImageSettings()).data)


def captions_of(path: Path) -> dict[str, str]:
    """By record id; each id must be there once."""
    rows = read(path)
    found = {row["id"]: row["vlm_caption"] for row in rows}
    assert len(found) == len(rows)
    return found


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def bare(row: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in row.items() if name not in ADDED}


async def batch(folder: Path, server: ModelServer, settings: Settings | None = None, /, **options: Any) -> Summary:
    """One run from ``in.jsonl`` to ``out.jsonl``."""
    chosen = {"input": str(folder / "in.jsonl"), "output": str(folder / "out.jsonl"), **options}
    return await run(Options(**chosen), settings or settings_for(folder, server))
