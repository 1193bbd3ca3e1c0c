"""``trendrag snapshot``: which snapshots there are, whether they are whole, back to an older one, to and fro."""

import contextlib
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from indexes.manifest import Manifest
    from indexes.shelf import Shelf
    from trendrag.settings import Settings

_AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, for programs.")


@click.group()
def snapshot() -> None:
    """Snapshots of trends: list, verify, show, and roll back.

    Every refresh that changes something publishes one; the newest few are kept (TRENDRAG_INGEST__KEEP_SNAPSHOTS). Which
    one is used is a matter of one small file, so that going back is instant, and a running server follows.

    Where TRENDRAG_SNAPSHOTS__URL is set (s3://bucket/prefix, file:///mnt/shared …), refreshes put each there too, and
    servers on other machines take it from there. push and pull do that by hand.
    """


@snapshot.command("list")
@_AS_JSON
def list_snapshots(as_json: bool) -> None:
    """Show the snapshots on disk, newest first.

    An arrow marks the one in use. Files that snapshots share are on disk once. Nothing is verified here: see
    `trendrag snapshot verify`. What is current at TRENDRAG_SNAPSHOTS__URL is told below.
    """
    from datetime import UTC, datetime

    from rich.console import Console
    from rich.table import Table

    from indexes.manifest import current_id, read_manifest, snapshot_ids
    from trendrag.settings import load_settings
    from trendrag.text import age

    settings = load_settings()
    folder = settings.snapshots_dir
    current = current_id(folder)
    elsewhere = _elsewhere(settings)
    found = [(each, read_manifest(folder / each), _files(folder / each)) for each in snapshot_ids(folder)]
    on_disk = sum({inode: size for _, _, files in found for inode, size in files}.values())
    if as_json:
        listed = [
            _described(each, manifest) | {"current": each == current, "bytes": sum(size for _, size in files)}
            for each, manifest, files in found
        ]
        told = {"current": current, "bytes": on_disk, "shelf": elsewhere, "snapshots": listed}
        click.echo(json.dumps(told, indent=2))
        return
    if not found:
        click.echo("There are no snapshots yet. Collect trends: trendrag refresh")
        _tell(elsewhere)
        return
    table = Table("", "id", "made", "trends", "origin", "size", box=None, pad_edge=False)
    now = datetime.now(UTC)
    for each, manifest, files in found:
        mark, size = "→" if each == current else "", _size(sum(size for _, size in files))
        if manifest is None:
            table.add_row(mark, each, "-", "-", "manifest can't be read", size)
        else:
            made = f"{age(now - manifest.created_at)} ago"
            table.add_row(mark, each, made, f"{manifest.count:,}", manifest.origin, size)
    Console().print(table)
    click.echo(f"{_size(on_disk)} on disk, shared files counted once; → is in use")
    _tell(elsewhere)


@snapshot.command()
@click.argument("ids", nargs=-1)
@_AS_JSON
def verify(ids: tuple[str, ...], as_json: bool) -> None:
    """Compare every file with its checksum.

    Of the snapshots with these IDS, or of all. Exits with 1 where one is damaged or was made with another embedder;
    each fault names the file. A damaged snapshot is never used: a server keeps the one it has, or takes the newest that
    is whole.
    """
    from indexes.embedder import open_embedder
    from indexes.manifest import snapshot_ids
    from indexes.snapshot import faults
    from trendrag.settings import load_settings

    settings = load_settings()
    wanted = [_known(settings, each) for each in ids] or snapshot_ids(settings.snapshots_dir)
    if not wanted:
        click.echo("[]" if as_json else "There are no snapshots yet. Collect trends: trendrag refresh")
        return
    embedder = open_embedder(settings)
    checked = [(each, faults(settings.snapshots_dir / each, embedder)) for each in wanted]
    if as_json:
        click.echo(json.dumps([{"id": each, "faults": wrong} for each, wrong in checked], indent=2))
    else:
        for each, wrong in checked:
            click.echo(f"{each}: {'ok' if not wrong else 'damaged'}")
            for fault in wrong:
                click.echo(f"  {fault}")
    if any(wrong for _, wrong in checked):
        click.get_current_context().exit(1)


@snapshot.command()
@click.argument("snapshot_id", metavar="[ID]", required=False)
def rollback(snapshot_id: str | None) -> None:
    """Use an older snapshot again.

    That called ID, or the newest before the current one that is whole. It is verified first. Servers that run change
    over by themselves. The next refresh that finds a change publishes a new snapshot, which is then used: stop the
    schedule while you look into what went wrong.

    Where TRENDRAG_SNAPSHOTS__URL is set, it becomes current there too, and servers on other machines change over.
    """
    from indexes.embedder import open_embedder
    from indexes.manifest import current_id, make_current, snapshot_ids
    from indexes.shelf import Shelf
    from indexes.snapshot import faults
    from trendrag.errors import CorruptSnapshot, NoSnapshot, ShelfError
    from trendrag.settings import load_settings

    settings = load_settings()
    shelf = Shelf.of(settings)
    folder = settings.snapshots_dir
    current = current_id(folder)
    if snapshot_id is not None:
        candidates = [_known(settings, snapshot_id)]
    else:
        candidates = [each for each in snapshot_ids(folder) if current is None or each < current]
    if not candidates:
        raise NoSnapshot("There is no older snapshot to go back to. See: trendrag snapshot list")
    embedder = open_embedder(settings)
    for each in candidates:
        wrong = faults(folder / each, embedder)
        if not wrong:
            make_current(folder, each)
            click.echo(
                f"Snapshot {each} is in use" + (" as before." if each == current else f"; before it was {current}.")
            )
            if shelf:
                try:
                    shelf.upload(folder, each, settings.ingest.keep_snapshots)
                except ShelfError as error:
                    raise ShelfError(
                        f"Servers on other machines did not change over. {error}. Then: trendrag snapshot push"
                    ) from error
                click.echo(f"It is current at {shelf.label}; servers on other machines follow within seconds.")
            return
        click.echo(f"{wrong[0]}.", err=True)
    raise CorruptSnapshot("Nothing was changed: no snapshot that can be used was found.")


@snapshot.command()
@click.argument("snapshot_id", metavar="[ID]", required=False)
@click.option("-n", "count", type=click.IntRange(0), default=10, show_default=True, help="How many trends to show.")
@_AS_JSON
def show(snapshot_id: str | None, count: int, as_json: bool) -> None:
    """Show what a snapshot holds.

    That called ID, or the current one: facts, and the strongest trends. It is verified first.
    """
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from indexes.embedder import open_embedder
    from indexes.manifest import current_id, read_manifest
    from indexes.snapshot import open_snapshot
    from trendrag.errors import NoSnapshot
    from trendrag.settings import load_settings

    settings = load_settings()
    each = _known(settings, snapshot_id) if snapshot_id else current_id(settings.snapshots_dir)
    if each is None:
        raise NoSnapshot("There are no trends yet. Collect some: trendrag refresh")
    directory = settings.snapshots_dir / each
    found = open_snapshot(directory, open_embedder(settings))
    hottest = sorted(found.trends, key=lambda trend: (-trend.score, trend.id))[:count]
    facts = _described(each, read_manifest(directory)) | {"bytes": sum(size for _, size in _files(directory))}
    if as_json:
        trends = [trend.model_dump(mode="json") for trend in hottest]
        click.echo(json.dumps(facts | {"trends": trends}, ensure_ascii=False, indent=2))
        return
    for name, value in facts.items():
        if value is not None:
            click.echo(f"{name.replace('_', ' '):<16}{_size(value) if name == 'bytes' else value}")
    table = Table("trend", "score", "stage", "last seen", box=None, pad_edge=False)
    for trend in hottest:
        seen = f"{trend.last_seen:%Y-%m-%d %H:%M} UTC"
        # Text, not markup: it is what sources said.
        table.add_row(Text(trend.phrase, style="bold"), f"{trend.score:.2f}", trend.stage, seen)
    if hottest:
        Console().print(table)


@snapshot.command()
@click.argument("snapshot_id", metavar="[ID]", required=False)
@click.option("--all", "again", is_flag=True, help="Copy every file, also those that are there: one may be damaged.")
def push(snapshot_id: str | None, again: bool) -> None:
    """Put a snapshot at TRENDRAG_SNAPSHOTS__URL and make it current there.

    That called ID, or the current one. Refreshes do this by themselves; only a sample goes there by hand alone. Files
    that are there already are not copied again.
    """
    from indexes.manifest import current_id
    from trendrag.errors import NoSnapshot
    from trendrag.settings import load_settings

    settings = load_settings()
    shelf = _shelf(settings)
    each = _known(settings, snapshot_id) if snapshot_id else current_id(settings.snapshots_dir)
    if each is None:
        raise NoSnapshot("There are no trends yet. Collect some: trendrag refresh")
    done = shelf.upload(settings.snapshots_dir, each, settings.ingest.keep_snapshots, again=again)
    copied = f"{done.files} files copied, {_size(done.size)}" if done else "nothing to do"
    click.echo(f"Snapshot {each} is current at {shelf.label} ({copied}).")


@snapshot.command()
def pull() -> None:
    """Take what is current at TRENDRAG_SNAPSHOTS__URL and use it here.

    `trendrag serve` does this by itself, every few seconds. All is verified before anything changes. The first one also
    prepares what retrieval knows of scenes, as a first refresh does: once, about a minute.
    """
    from indexes.commands import prepare_scenes
    from indexes.embedder import open_embedder
    from indexes.manifest import current_id
    from trendrag.errors import NoSnapshot
    from trendrag.settings import load_settings

    settings = load_settings()
    shelf, folder = _shelf(settings), settings.snapshots_dir
    if shelf.current() is None:
        raise NoSnapshot(f"There is no snapshot at {shelf.label} yet. Put one there: trendrag snapshot push")
    embedder = open_embedder(settings)
    done = shelf.download(folder, embedder, settings.ingest.keep_snapshots, again=True)
    prepare_scenes(embedder, settings.models_dir)
    copied = f"{done.files} files copied, {_size(done.size)}" if done else "as before"
    click.echo(f"Snapshot {current_id(folder)} is in use ({copied}).")


def _shelf(settings: "Settings") -> "Shelf":
    from indexes.shelf import Shelf
    from trendrag.errors import ConfigurationError

    shelf = Shelf.of(settings)
    if shelf is None:
        raise ConfigurationError(
            "There is nowhere to copy snapshots. Set TRENDRAG_SNAPSHOTS__URL, e.g. s3://bucket/prefix"
        )
    return shelf


def _elsewhere(settings: "Settings") -> dict[str, str | None] | None:
    """What is current on the shelf, or why that can't be told; None where there is no shelf."""
    from indexes.shelf import Shelf
    from trendrag.errors import ShelfError

    shelf = Shelf.of(settings)
    if shelf is None:
        return None
    try:
        pointer = shelf.current()
    except ShelfError as error:
        return {"url": shelf.label, "current": None, "error": str(error)}
    return {"url": shelf.label, "current": pointer.id if pointer else None, "error": None}


def _tell(elsewhere: dict[str, str | None] | None) -> None:
    if elsewhere is None:
        return
    if elsewhere["error"]:
        click.echo(elsewhere["error"], err=True)
    else:
        click.echo(f"{elsewhere['url']}: {elsewhere['current'] or 'nothing yet'}")


def _known(settings: "Settings", given: str) -> str:
    """The id, or the only one that begins so."""
    from indexes.manifest import snapshot_ids
    from trendrag.errors import NoSnapshot

    found = [each for each in snapshot_ids(settings.snapshots_dir) if each.startswith(given)]
    if given and len(found) == 1:
        return found[0]
    problem = "more than one snapshot begins" if len(found) > 1 else "no snapshot is called"
    raise NoSnapshot(f"{problem.capitalize()} {given!r}. See: trendrag snapshot list")


def _described(each: str, manifest: "Manifest | None") -> dict[str, Any]:
    if manifest is None:
        return {"id": each, "created_at": None}
    return {
        "id": each,
        "created_at": manifest.created_at.isoformat(),
        "recorded_at": manifest.recorded_at.isoformat() if manifest.recorded_at else None,
        "origin": manifest.origin,
        "count": manifest.count,
        "embedder": manifest.embedder.name,
        "segments": len(manifest.segments),
        "build_seconds": manifest.build_seconds,
    }


def _files(directory: Path) -> list[tuple[int, int]]:
    """(inode, bytes) of each file: those that snapshots share have one inode."""
    with contextlib.suppress(FileNotFoundError):  # a refresh may be removing it
        stats = [path.stat() for path in directory.iterdir()]
        return [(each.st_ino, each.st_size) for each in stats]
    return []


def _size(count: int) -> str:
    return f"{count / 1e6:.1f} MB" if count >= 100_000 else f"{count / 1e3:.1f} kB"
