"""`trendrag sources`: list, check, add. What a check is stands in ``ingest.check``, how the user's file grows in
``ingest.source_file``; this puts them together and shows them."""

import json
import shlex
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from ingest.check import Check
    from ingest.sources.base import Source
    from ingest.store import SourceStatus
    from trendrag.settings import Settings

TYPES = ("bluesky", "gdelt", "google_trends", "hackernews", "mastodon", "reddit", "rss", "wikimedia", "youtube")
"""``ingest.recognise.TYPES``, written again so that the help costs no import."""

_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object, for programs.")


@click.group()
def sources() -> None:
    """See, check and extend the list of trend sources.

    The list is the file that TRENDRAG_INGEST__SOURCES_FILE names, else sources.toml in the data directory, else the
    built-in one. docs/sources.md says how it is written.

    \b
        trendrag sources list
        trendrag sources check https://example.org/
        trendrag sources add https://example.org/feed --language en --category food
    """


@sources.command("list")
@_JSON
def list_(as_json: bool) -> None:
    """Show every source of the list, and how its last visits went."""
    from ingest.source_report import listed, show_listed
    from ingest.sources import load_sources
    from trendrag.settings import load_settings

    with _errors(as_json):
        settings = load_settings()
        found = load_sources(settings.sources_file)
        statuses = _statuses(settings)
    now = _now()
    rows = [listed(each, statuses.get(each.id), now) for each in found]
    if as_json:
        file = str(settings.sources_file) if settings.sources_file else None
        click.echo(json.dumps({"file": file, "sources": rows}, ensure_ascii=False))
        return
    click.echo(f"{len(rows)} sources, from {settings.sources_file or 'the built-in list'}\n")
    for row, each in zip(rows, found, strict=True):
        show_listed(row, statuses.get(each.id), now)


@sources.command()
@click.argument("target")
@click.option("--type", "kind", type=click.Choice(TYPES), help="Which parser to use.  [default: seen from the content]")
@_JSON
def check(target: str, kind: str | None, as_json: bool) -> None:
    """Fetch and parse one source, store nothing, and say what it gives and what a refresh would make of it.

    TARGET is the id of a source of the list, a URL, or a file that holds a saved answer. Of a web page the feeds that
    it names are listed. The exit code is 1 where nothing usable came.
    """
    from ingest.source_report import as_dict, show
    from trendrag.settings import load_settings

    with _errors(as_json):
        done = _check(load_settings(), target, kind)
    if as_json:
        click.echo(json.dumps(as_dict(done), ensure_ascii=False))
    else:
        show(done, _now())
    if not done.usable:
        sys.exit(1)


@sources.command()
@click.argument("url")
@click.option("--id", "name", help="Its name in the list.  [default: made from the address]")
@click.option("--language", help="The language that it is written in: en, de, …")
@click.option("--region", help="The country that it is about: US, GB, …")
@click.option("--category", "categories", multiple=True, help="What it is about: food, travel, … May be repeated.")
@click.option("--file", type=click.Path(dir_okay=False, path_type=Path), help="The list to add to.  [default: yours]")
@click.option("--force", is_flag=True, help="Add it even where the check finds nothing.")
def add(
    url: str,
    name: str | None,
    language: str | None,
    region: str | None,
    categories: tuple[str, ...],
    file: Path | None,
    force: bool,
) -> None:
    """Check a URL and add it to your list of sources.

    A web page that names one feed stands for that feed. Where you have no list yet, one is made in the data directory,
    as a copy of the built-in list, and used from then on.
    """
    from ingest.source_report import show
    from trendrag.errors import RequestError
    from trendrag.settings import load_settings

    with _errors(as_json=False):
        if not url.startswith(("http://", "https://")):
            raise RequestError("Give the whole address of a feed or a page, beginning with https://")
        settings = load_settings()
        found = _check(settings, url, None)
        if len(found.feeds) == 1:
            click.echo(f"The page names one feed: {found.feeds[0].url}")
            found = _check(settings, found.feeds[0].url, None)
        if not found.usable:
            show(found, _now())
            if len(found.feeds) > 1:
                raise RequestError("Nothing was added. Choose one of the feeds that the page names.")
            if not force:
                raise RequestError("Nothing was added, as nothing usable came. --force adds it all the same.")
        given = {"language": language or "", "region": region or "", "categories": categories}
        fields = found.fields or {"type": "rss", "url": found.target}
        source, target = _append(settings, file, {"id": name or "", **fields, **{k: v for k, v in given.items() if v}})
    count = len(found.parsed.observations)
    click.echo(f"Added {source.id!r} ({fields['type']}, {count} items now) to {target}")
    click.echo(f"It is read from {source.urls(_now())[0]}")
    if settings.sources_file is None or settings.sources_file.resolve() != target.resolve():
        place = shlex.quote(str(target.absolute()))
        click.echo(f"This list is not the one in use. To use it: TRENDRAG_INGEST__SOURCES_FILE={place}")


def _check(settings: "Settings", target: str, kind: str | None) -> "Check":
    """``target`` is tried as a URL, as an id of the list, and as a file, in this order."""
    import asyncio

    from ingest.check import check_file, check_source, check_url
    from ingest.fetcher import HttpFetcher
    from ingest.sources import load_sources
    from trendrag.errors import RequestError

    async def over_the_network(source: "Source | None") -> "Check":
        async with HttpFetcher.open(settings.ingest) as fetcher:
            if source:
                return await check_source(source, fetcher, settings.ingest, _now())
            return await check_url(target, fetcher, settings.ingest, kind)

    if "://" in target:
        return asyncio.run(over_the_network(None))
    listed = {each.id: each for each in load_sources(settings.sources_file)}
    if target in listed:
        if kind:
            raise RequestError(f"--type is for addresses and files; the list says of what type {target!r} is")
        return asyncio.run(over_the_network(listed[target]))
    if Path(target).is_file():
        return check_file(Path(target), settings.ingest, _now(), kind)
    raise RequestError(
        f"{target!r} is no source of the list (see: trendrag sources list) and no file; an address begins with https://"
    )


def _append(settings: "Settings", file: Path | None, fields: dict[str, Any]) -> "tuple[Source, Path]":
    from ingest.source_file import appended, built_in_copy, entry, ids_in, read_list, suggested_id, write_list

    target = file or settings.sources_file or settings.own_sources_file
    text = read_list(target)
    if text is None:
        # A place that the user chose begins empty; the default place takes over what was in use before.
        text = built_in_copy() if target == settings.own_sources_file else ""
    where = str(target)
    if not fields["id"]:
        known = {name: value for name, value in fields.items() if name not in ("id", "language", "categories")}
        fields = fields | {"id": suggested_id(known, ids_in(text, where))}
    write_list(target, appended(text, fields, where=where, now=_now()))
    return entry(fields), target


def _statuses(settings: "Settings") -> "dict[str, SourceStatus]":
    """What the database knows of each source; nothing where there is no database yet, and none is made."""
    if settings.ingest.database_url is None and not settings.database_path.exists():
        return {}
    from ingest.store import ObservationStore

    store = ObservationStore.of(settings)
    try:
        return store.statuses()
    finally:
        store.close()


def _now() -> datetime:
    from datetime import UTC

    return datetime.now(UTC)


@contextmanager
def _errors(as_json: bool) -> Iterator[None]:
    """Our errors as one line, or as JSON for programs; the exit code is 1."""
    from trendrag.errors import TrendragError

    try:
        yield
    except TrendragError as error:
        if as_json:
            click.echo(json.dumps({"error": {"code": error.code, "message": str(error)}}))
            sys.exit(1)
        raise click.ClickException(str(error)) from error
