"""`trendrag keys`: create, list, revoke. What a key is stands in ``serving.identity.keys``; this shows it."""

import json
import re
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

import click

if TYPE_CHECKING:
    from serving.identity.keys import ApiKey
    from serving.identity.store import KeyStore

# serving.identity.keys.SCOPES, spelled out so that `--help` costs no import; a test keeps them equal.
SCOPES = ("captions", "history", "metrics")
T = TypeVar("T")


def _end(_ctx: click.Context, _param: click.Parameter, value: str | None) -> datetime | None:
    """A moment in UTC: so many days or hours from now (`90d`, `12h`), or the beginning of a day (`2027-01-31`)."""
    if value is None:
        return None
    now = datetime.now(UTC)
    try:
        if span := re.fullmatch(r"(\d{1,5})([dh])", value):
            end = now + int(span[1]) * (timedelta(days=1) if span[2] == "d" else timedelta(hours=1))
        else:
            end = datetime.strptime(value, "%Y-%m-%d").replace(tzinfo=UTC)
    except ValueError as error:
        raise click.BadParameter(f"{value!r} is neither a span like 90d or 12h, nor a day like 2027-01-31") from error
    if end <= now:
        raise click.BadParameter(f"{value!r} is over already")
    return end


@click.group()
def keys() -> None:
    """API keys: make one, see who has which, take one back.

    A server on an address that others reach asks everybody for a key. Programs send it as `Authorization: Bearer KEY`
    or `X-API-Key: KEY`. Keys are in the service database (TRENDRAG_SERVER__DATABASE_URL); all servers on it share them.

    \b
        trendrag keys create my-app --captions-per-day 500 --expires 90d
        trendrag keys list
        trendrag keys revoke 4g7m2kqp9xwz
    """


@keys.command()
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("captions", "history"),
    show_default=True,
    help="What it may: write captions; read and rate what it wrote; read /metrics. May be repeated.",
)
@click.option(
    "--expires",
    metavar="WHEN",
    callback=_end,
    help="When it ends: in 90d, 12h, or on 2027-01-31 (UTC).  [default: never]",
)
@click.option(
    "--captions-per-day", type=click.IntRange(1, 1_000_000), help="Its quota; a day is UTC's.  [default: none]"
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")
def create(
    name: str, scopes: tuple[str, ...], expires: datetime | None, captions_per_day: int | None, as_json: bool
) -> None:
    """Make a key for NAME, and show it this one time.

    Only the key is written to stdout, so that KEY=$(trendrag keys create my-app) holds it. What is kept cannot be
    turned back into it: a key that is lost is revoked, and another one made. NAME is for you, to know it by.
    """
    from serving.identity.keys import new_key
    from trendrag.errors import RequestError

    shown = " ".join(name.split())
    if not shown.isprintable() or not 1 <= len(shown) <= 100:
        raise RequestError("NAME needs 1 to 100 printable characters: it is what you will know the key by.")
    key, kept = new_key(
        shown,
        frozenset(scope for scope in SCOPES if scope in scopes),  # type: ignore[misc]  # the same words, as a test says
        datetime.now(UTC),
        expires_at=expires,
        captions_per_day=captions_per_day,
    )
    _with_store(lambda store: store.add(kept))
    if as_json:
        click.echo(json.dumps({"key": key, **_told(kept, 0)}, ensure_ascii=False))
        return
    click.echo(f"The key of {shown}, for {', '.join(sorted(kept.scopes))}. It is not shown again:", err=True)
    click.echo(key)


@keys.command("list")
@click.option("--all", "everything", is_flag=True, help="Also those that expired or were revoked.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")
def list_(everything: bool, as_json: bool) -> None:
    """Show the keys: whose, what they may, when they were used last. The keys themselves nobody can show.

    Last use is exact to a minute or so.
    """
    now = datetime.now(UTC)

    async def both(store: "KeyStore") -> "tuple[list[ApiKey], dict[str, int]]":
        return list(await store.all()), await store.uses(now.date())

    found, uses = _with_store(both)
    shown = [key for key in found if everything or key.fault(now) is None]
    if as_json:
        click.echo(json.dumps([_told(key, uses.get(key.id, 0)) for key in shown], ensure_ascii=False, indent=2))
        return
    if not shown:
        click.echo(
            "There is no key. Make one with: trendrag keys create NAME" if not found else "No key is good. --all"
        )
        return

    from rich.console import Console
    from rich.markup import escape
    from rich.table import Column, Table

    heads = ("name", "may", "captions today", "created", "last used", "ends")
    table = Table(Column("id", no_wrap=True), *heads, box=None, pad_edge=False)
    for key in shown:
        limit = key.captions_per_day
        table.add_row(
            key.id,
            escape(key.name),
            ", ".join(sorted(key.scopes)),
            "no limit" if limit is None else f"{uses.get(key.id, 0)} of {limit}",
            _minute(key.created_at),
            _minute(key.last_used_at) or "never",
            f"revoked {_minute(key.revoked_at)}" if key.revoked_at else _minute(key.expires_at) or "never",
        )
    Console(soft_wrap=False).print(table)
    click.echo("Times are UTC.")


@keys.command()
@click.argument("key_id", metavar="ID")
def revoke(key_id: str) -> None:
    """End the key ID (`trendrag keys list`) for good; where it leaked, the key itself will do too.

    Servers refuse it within some seconds. What was written with it stays.
    """
    from serving.identity.keys import FORM
    from trendrag.errors import RequestError

    whole = FORM.fullmatch(key_id.strip())
    wanted = whole[1] if whole else key_id.strip()
    now = datetime.now(UTC)
    key = _with_store(lambda store: store.revoke(wanted, now))
    if key is None:
        raise RequestError("There is no key of that id. `trendrag keys list --all` shows them.")
    before = " It was revoked before." if key.revoked_at is not None and key.revoked_at < now else ""
    click.echo(f"{key.id} ({key.name}) is revoked; servers refuse it within some seconds.{before}")


def _with_store(work: "Callable[[KeyStore], Awaitable[T]]") -> T:
    import asyncio
    from contextlib import aclosing

    from serving.identity.store import KeyStore
    from serving.store.database import Database
    from trendrag.settings import load_settings

    async def run() -> T:
        async with aclosing(Database.of(load_settings())) as database:
            return await work(KeyStore(database))

    return asyncio.run(run())


def _told(key: "ApiKey", today: int) -> dict[str, object]:
    def moment(at: datetime | None) -> str | None:
        return None if at is None else at.isoformat(timespec="seconds").replace("+00:00", "Z")

    return {
        "id": key.id,
        "name": key.name,
        "scopes": sorted(key.scopes),
        "captions_per_day": key.captions_per_day,
        "captions_today": today if key.captions_per_day is not None else None,
        "created_at": moment(key.created_at),
        "expires_at": moment(key.expires_at),
        "last_used_at": moment(key.last_used_at),
        "revoked_at": moment(key.revoked_at),
    }


def _minute(at: datetime | None) -> str:
    return f"{at:%Y-%m-%d %H:%M}" if at else ""
