"""``trendrag caption`` and ``trendrag serve``."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    import socket

    from serving.child import Child
    from trendrag.settings import Settings
    from trendrag.types import CaptionEvent, CaptionRequest

# trendrag.types.Platform, spelled out so that `--help` need not import pydantic; a test keeps them equal.
PLATFORMS = ("generic", "instagram", "tiktok", "x", "facebook", "linkedin", "pinterest", "threads")


@click.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--note", help="What the photo is about, in your words.")
@click.option("--candidates", type=click.IntRange(1, 8), default=1, show_default=True, help="How many captions.")
@click.option("--platform", type=click.Choice(PLATFORMS), default="generic", show_default=True, help="Where it goes.")
@click.option("--tone", help="How it should sound: playful, dry, poetic …")
@click.option("--language", default="en", show_default=True, help="Language of the caption (BCP 47).")
@click.option("--max-chars", type=click.IntRange(40, 5000), default=280, show_default=True, help="Longest caption.")
@click.option("--region", help="Only trends of this region (US, GB, …) and of everywhere.")
@click.option("--no-trends", is_flag=True, help="Write without trends.")
@click.option("--json", "as_json", is_flag=True, help="Print one event a line as JSON, as they come.")
@click.pass_context
def caption(
    ctx: click.Context,
    photo: Path,
    note: str | None,
    candidates: int,
    platform: str,
    tone: str | None,
    language: str,
    max_chars: int,
    region: str | None,
    no_trends: bool,
    as_json: bool,
) -> None:
    """Write captions for PHOTO as they stream, with the trend words lit up and where each trend comes from.

    The embedded engine writes drafts; for real captions point TrendRAG at a model server:

    \b
        export TRENDRAG_MODEL__PROVIDER=openai
        export TRENDRAG_MODEL__BASE_URL=http://127.0.0.1:8001/v1
        export TRENDRAG_MODEL__NAME=Qwen/Qwen2.5-VL-3B-Instruct-AWQ
        trendrag caption photo.jpg --note "first snow" --candidates 3
    """
    import asyncio

    from pydantic import ValidationError

    from serving.images import prepare_image
    from trendrag.cli import option_error
    from trendrag.errors import ImageTooLarge
    from trendrag.settings import load_settings
    from trendrag.types import CaptionRequest, TrendFilters

    settings = load_settings()
    if photo.stat().st_size > settings.image.max_bytes:
        raise ImageTooLarge(f"{photo} is larger than {settings.image.max_bytes / 2**20:.0f} MiB")
    try:
        request = CaptionRequest.model_validate(
            {
                "image": prepare_image(photo.read_bytes(), settings.image),
                "note": note,
                "platform": platform,
                "tone": tone,
                "language": language,
                "candidates": candidates,
                "max_chars": max_chars,
                "trends": not no_trends,
                "filters": TrendFilters(region=region),
            }
        )
    except ValidationError as error:
        raise option_error(error) from error
    ctx.exit(asyncio.run(_caption(settings, request, as_json=as_json)))


async def _caption(settings: "Settings", request: "CaptionRequest", *, as_json: bool) -> int:
    from rich.console import Console

    from serving.service import open_service
    from serving.terminal import watch
    from trendrag.types import Failed

    async with open_service(settings) as service, aclosing(service.stream(request)) as events:
        outcome = (
            await _print_json(events)
            if as_json
            else await watch(events, request.candidates, Console(highlight=False, soft_wrap=False))
        )
    if isinstance(outcome, Failed):
        click.echo(f"Error: {outcome.message}", err=True)
        return 1
    return 0


async def _print_json(events: "AsyncGenerator[CaptionEvent, None]") -> "CaptionEvent | None":
    event = None
    async for event in events:
        click.echo(event.model_dump_json())
    return event


@click.command()
@click.option("--host", help="Address to listen on.  [default: the setting server.host, 127.0.0.1]")
@click.option("--port", type=click.IntRange(0, 65535), help="Port; 0 picks one.  [default: server.port, 8000]")
@click.option("--with-schedule", is_flag=True, help="Collect trends too: run `trendrag schedule` beside the server.")
@click.option("--schedule-metrics-port", type=click.IntRange(1, 65535), help="Its --metrics-port.  [default: none]")
def serve(host: str | None, port: int | None, with_schedule: bool, schedule_metrics_port: int | None) -> None:
    """Serve captions over HTTP: the page at /, the API at /api/v1/caption, its description at /openapi.json.

    With --with-schedule new trends are collected by a process of its own, so that whatever happens to it (it is started
    again) the page stays up. /readyz and /metrics say how it is.

    There are no keys yet: whoever reaches the address can use it. Ctrl-C lets captions under way finish for 10 s.
    """
    import asyncio
    import ipaddress

    if schedule_metrics_port is not None and not with_schedule:
        raise click.UsageError("--schedule-metrics-port is of use only with --with-schedule")
    from trendrag.settings import load_settings

    settings = load_settings()
    host = host or settings.server.host
    try:
        exposed = not ipaddress.ip_address(host).is_loopback
    except ValueError:
        exposed = host != "localhost"
    if exposed:
        click.echo(f"Listening on {host}, beyond this machine, and there are no keys yet: protect it.", err=True)
    listener = _listen(host, settings.server.port if port is None else port)
    asyncio.run(_serve(settings, listener, _schedule(schedule_metrics_port) if with_schedule else None))


def _schedule(metrics_port: int | None) -> "Child":
    """The command of another package, by its name: what passes between the two is the snapshot directory."""
    import sys

    from serving.child import Child

    # -P: whatever lies in the folder that we were started in is not imported.
    command = [sys.executable, "-P", "-m", "trendrag", "schedule", "--with-parent"]
    if metrics_port is not None:
        command.append(f"--metrics-port={metrics_port}")
    return Child("The schedule", command)


def _listen(host: str, port: int) -> "socket.socket":
    """Bound here, before anything is loaded: uvicorn would log a taken port and exit."""
    import socket

    from trendrag.errors import ConfigurationError

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"Can't listen on {host}, port {port} ({error.strerror or error}). Choose others with --host and --port."
        ) from error


async def _serve(settings: "Settings", listener: "socket.socket", schedule: "Child | None" = None) -> None:
    import logging
    from contextlib import nullcontext

    import uvicorn

    from serving.app import create_app
    from serving.service import open_service

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    for chatty in ("aiobotocore", "botocore", "httpx2"):  # the last one logs every call to the model server
        logging.getLogger(chatty).setLevel(logging.WARNING)
    # Opened here and not by the lifespan, where an error would come out as a traceback.
    async with open_service(settings) as service:
        config = uvicorn.Config(
            create_app(settings, lambda _: nullcontext(service), schedule=schedule),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=10,
        )
        host, port = listener.getsockname()[:2]
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"TrendRAG is at http://{shown}:{port} (Ctrl-C stops it)", err=True)
        await uvicorn.Server(config).serve([listener])
