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
PLATFORMS = (
    "generic",
    "instagram",
    "tiktok",
    "x",
    "facebook",
    "linkedin",
    "pinterest",
    "threads",
    "bluesky",
    "mastodon",
)

LENGTHS = ("short", "medium", "long")  # trendrag.types.Length


@click.command()
@click.argument("photo", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--note", help="What the photo is about, in your words.")
@click.option("--candidates", type=click.IntRange(1, 8), default=1, show_default=True, help="How many captions.")
@click.option("--platform", type=click.Choice(PLATFORMS), default="generic", show_default=True, help="Where it goes.")
@click.option("--tone", help="How it should sound: playful, dry, poetic …")
@click.option("--language", default="en", show_default=True, help="Language of the caption (BCP 47).")
@click.option("--length", type=click.Choice(LENGTHS), help="How long roughly.")
@click.option("--max-chars", type=click.IntRange(40, 5000), help="Longest caption.  [default: the platform's]")
@click.option("--alt-text", is_flag=True, help="Describe the photo for those who can't see it, in place of a caption.")
@click.option("--no-emoji", is_flag=True, help="Keep emoji out.")
@click.option("--no-hashtags", is_flag=True, help="Keep hashtags out.")
@click.option("--include", multiple=True, metavar="WORDS", help="Words that it should have; may be given repeatedly.")
@click.option("--exclude", multiple=True, metavar="WORDS", help="Words, or a trend, never to use; repeatedly too.")
@click.option("--region", help="Only trends of this region (US, GB, …) and of everywhere.")
@click.option("--no-trends", is_flag=True, help="Write without trends.")
@click.option("--k", type=click.IntRange(1, 20), help="Offer at most so many trends.  [default: retrieval.k, 8]")
@click.option("--previous", metavar="CAPTION", help="A caption of this photo, to be changed as --change says.")
@click.option("--change", help='What to change in it: "shorter", "mention my shop".')
@click.option("--unlike", multiple=True, metavar="CAPTION", help="Write one caption unlike this; repeatedly too.")
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
    length: str | None,
    max_chars: int | None,
    alt_text: bool,
    no_emoji: bool,
    no_hashtags: bool,
    include: tuple[str, ...],
    exclude: tuple[str, ...],
    region: str | None,
    no_trends: bool,
    k: int | None,
    previous: str | None,
    change: str | None,
    unlike: tuple[str, ...],
    as_json: bool,
) -> None:
    """Write captions for PHOTO as they stream, with the trend words lit up and where each trend comes from.

    The embedded engine writes drafts; for real captions point TrendRAG at a model server:

    \b
        export TRENDRAG_MODEL__PROVIDER=openai
        export TRENDRAG_MODEL__BASE_URL=http://127.0.0.1:8001/v1
        export TRENDRAG_MODEL__NAME=Qwen/Qwen2.5-VL-3B-Instruct-AWQ
        trendrag caption photo.jpg --note "first snow" --candidates 3

    A caption that is nearly right is changed, or another is written in its place; give all other options as before:

    \b
        trendrag caption photo.jpg --note "first snow" --previous "First snow!" --change "a bit longer, with the dog"
        trendrag caption photo.jpg --note "first snow" --unlike "First snow!"

    Its length is that of the platform (X 280, Threads 500, …), unless --length or --max-chars say less; a file of your
    own can change these rules: TRENDRAG_PLATFORMS_FILE.
    """
    import asyncio

    from pydantic import ValidationError

    from serving.images import prepare_image
    from trendrag.cli import option_error
    from trendrag.errors import ImageTooLarge
    from trendrag.settings import load_settings
    from trendrag.types import CaptionRequest, TrendFilters

    if (previous is None) != (change is None):
        raise click.UsageError("--previous and --change go together: what to change, and in which caption.")
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
                "length": length,
                "max_chars": max_chars,
                "alt_text": alt_text,
                "emoji": not no_emoji,
                "hashtags": not no_hashtags,
                "include": include,
                "exclude": exclude,
                "trends": not no_trends,
                "filters": TrendFilters(region=region, k=k),
                "turns": [{"role": "assistant", "text": previous}, {"role": "user", "text": change}]
                if change is not None
                else (),
                "regenerate": {"candidate": 0, "avoid": unlike} if unlike else None,
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
            else await watch(events, len(request.numbers), Console(highlight=False, soft_wrap=False))
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

    On this machine nobody needs an API key. On an address that others reach everybody does, and the server refuses to
    listen there before there is one (`trendrag keys create NAME`); docs/operating.md says how to put it in the open.

    Ctrl-C, or SIGTERM, lets captions under way finish
    (TRENDRAG_SERVER__DRAIN_S, 30 s); a second one cuts them.
    """
    import asyncio

    if schedule_metrics_port is not None and not with_schedule:
        raise click.UsageError("--schedule-metrics-port is of use only with --with-schedule")
    from trendrag.settings import load_settings

    settings = load_settings()
    if host:
        settings = settings.model_copy(update={"server": settings.server.model_copy(update={"host": host})})
    asyncio.run(_mind_the_door(settings))
    listener = _listen(settings.server.host, settings.server.port if port is None else port)
    asyncio.run(_serve(settings, listener, _schedule(schedule_metrics_port) if with_schedule else None))


async def _mind_the_door(settings: "Settings") -> None:
    """Says who will be let in.

    Raises:
        ConfigurationError: nobody could be.
    """
    from contextlib import aclosing
    from datetime import UTC, datetime

    from serving.identity.door import asked_of, is_loopback, refuse_without_keys
    from serving.identity.store import KeyStore
    from serving.store.database import Database
    from trendrag.errors import StorageError

    host = settings.server.host
    if asked_of(settings.server) == "nobody" and not is_loopback(host):
        click.echo(
            f"Warning: nobody is asked for an API key (TRENDRAG_SERVER__KEYS=off), and {host} is reached from beyond "
            "this machine. Whatever is in front of it must keep strangers out.",
            err=True,
        )
    async with aclosing(Database.of(settings)) as database:
        try:
            await refuse_without_keys(settings, KeyStore(database), datetime.now(UTC))
        except StorageError as error:
            click.echo(f"Warning: {error} Until then everybody is refused.", err=True)


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
        listener = socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"Can't listen on {host}, port {port} ({error.strerror or error}). Choose others with --host and --port."
        ) from error
    # Connections inherit it. asyncio sets it only where a socket names its protocol, which those of create_server do
    # not; without it a token that follows a small one waits for the client's acknowledgement, 40 ms on Linux.
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return listener


async def _serve(settings: "Settings", listener: "socket.socket", schedule: "Child | None" = None) -> None:
    import gc
    import os
    from contextlib import nullcontext

    import uvicorn

    from serving.app import create_app
    from serving.drain import Drain, DrainingServer
    from serving.http.page import NOT_BUILT, is_built
    from serving.service import open_service
    from serving.tracing import exporting
    from trendrag.logs import set_up_logging

    set_up_logging(settings.log, settings)
    # Opened here and not by the lifespan, where an error would come out as a traceback.
    drain = Drain()
    with exporting(os.environ) as tracer:
        async with open_service(settings, tracer) as service:
            config = uvicorn.Config(
                create_app(settings, lambda _: nullcontext(service), schedule=schedule, tracer=tracer, drain=drain),
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # believed by serving.http.clients, from trusted proxies alone
            )
            # What is there by now stays. Every full collection would walk through it while all streams wait: 225,000
            # objects, 0.3 s on a busy machine.
            gc.collect()
            gc.freeze()
            host, port = listener.getsockname()[:2]
            shown = f"[{host}]" if ":" in host else host
            if not is_built():
                click.echo(NOT_BUILT, err=True)
            click.echo(f"TrendRAG is at http://{shown}:{port} (Ctrl-C stops it)", err=True)
            server = settings.server
            await DrainingServer(config, drain, server.drain_s, server.drain_notice_s).serve([listener])
