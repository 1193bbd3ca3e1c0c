"""A run from its options: what is opened, in which order, and what is refused before anything is asked or written."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from serving.batch.captions import Wishes
from serving.batch.engine import Progress, Run
from serving.batch.files import Files
from serving.batch.fleet import open_fleet
from serving.batch.images import ImageCache, RecordImages
from serving.batch.journal import Held, Journal, State
from serving.batch.places import Places, exists, is_url, same, suffixes
from serving.batch.records import Malformed, Record, parse
from serving.batch.selection import SYNTHETIC, Selection, compiled
from serving.batch.source import Folder, Source, open_source
from serving.batch.work import RowWork, line_hash
from serving.fetching import ImageFetcher
from serving.image_pool import ImagePool, cores_for_images
from trendrag.errors import RequestError, StorageError
from trendrag.settings import Settings
from trendrag.types import Usage

Mode = Literal["new", "resume", "retry", "overwrite"]


@dataclass(frozen=True, slots=True)
class Options:
    """As ``trendrag batch --help`` tells them."""

    input: str
    output: str
    wishes: Wishes = field(default_factory=Wishes)
    everything: bool = False
    description_field: str = "description"
    synthetic: str | None = None
    limit: int | None = None
    offset: int = 0
    images: Path | None = None
    image_field: str | None = None
    id_field: str = "id"
    note_field: str | None = None
    concurrency: int | None = None
    servers: tuple[str, ...] = ()
    mode: Mode = "new"
    patience_s: float = 600.0
    engine: Literal["local", "ray"] = "local"
    ray_address: str | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """``counts`` are of all runs on this output; ``usage`` and ``seconds`` of this one, from its first row on."""

    progress: Progress
    counts: dict[State, int]
    usage: Usage
    seconds: float
    places: Places


@dataclass(slots=True)
class Watched:
    """What a display is shown while the run goes on. ``usage`` is asked for, as the rows add to it."""

    progress: Progress
    source: Source
    usage: Callable[[], Usage]
    limit: int | None


async def run(options: Options, settings: Settings, watch: Callable[[Watched], Any] | None = None) -> Summary:
    """Runs to the end of the input.

    Raises:
        TrendragError: what can't be, or what ended it; the message says how to go on.
    """
    source, selection = prepared(options, settings)
    places = Places.of(options.output, settings.data_dir)
    _refuse_itself(options, places)
    async with opened_work(options, settings, source) as (work, width):
        with _journal(places, options) as journal:
            _agree(journal, options, settings, work, selection)
            limit = _limit(journal, options)
            selection = replace(selection, limit=limit)
            files = Files(
                places.rows, places.errors, suffixes(str(places.rows))[1], journal, rewriting=options.mode == "retry"
            )
            try:
                engine = Run(
                    source, selection, journal, files, work.settle, width,
                    retry=options.mode == "retry", id_field=options.id_field,
                )  # fmt: skip
                if watch is not None:
                    watch(Watched(engine.progress, source, lambda: work.usage, limit))
                began = asyncio.get_running_loop().time()
                progress = await engine.run()
                seconds = asyncio.get_running_loop().time() - began
                files.finish()
            except BaseException:
                files.abandon()
                raise
            if places.published:
                from serving.batch.publishing import publish  # noqa: PLC0415  not needed for --help

                await asyncio.to_thread(publish, places)
            return Summary(progress, journal.counts(), work.usage, seconds, places)


def prepared(options: Options, settings: Settings) -> tuple[Source, Selection]:
    """The input, and which records of it are captioned."""
    pattern = compiled(options.synthetic or settings.batch.synthetic or SYNTHETIC)
    # A folder's records have no description at all, and all are taken by that rule too.
    selection = Selection(pattern, options.description_field, options.everything, options.offset, options.limit)
    return open_source(options.input), selection


@asynccontextmanager
async def opened_work(
    options: Options, settings: Settings, source: Source
) -> AsyncIterator[tuple["RowWork | Any", Callable[[], int]]]:
    """What settles rows, and how many it can have under way."""
    folder = options.images or (source.folder if isinstance(source, Folder) else _folder_of(options.input))
    if not folder.is_dir():
        raise RequestError(f"There is no folder of images {folder}.")
    if options.engine == "ray":
        from serving.batch.ray_engine import open_ray_work  # noqa: PLC0415  an extra

        async with open_ray_work(options, settings, folder) as ray_work:
            yield ray_work, ray_work.width
        return
    async with open_row_work(options, settings, folder) as work:
        yield work, lambda: work.fleet.width


@asynccontextmanager
async def open_row_work(options: Options, settings: Settings, folder: Path) -> AsyncIterator[RowWork]:
    """Fetcher, images and servers, in this process."""
    cache = None
    if settings.batch.cache_mb:
        cache = ImageCache(settings.data_dir / "batch-images", settings.batch.cache_mb * 2**20)
    with ImagePool.open(cores_for_images(), 0) as pool:
        async with (
            ImageFetcher.open(settings.fetch, settings.image) as fetcher,
            open_fleet(settings, options.wishes, options.servers, options.concurrency, options.patience_s) as fleet,
        ):
            images = RecordImages(
                fetcher, pool, settings.image,
                folder=folder, field=options.image_field, cache=cache, per_host=settings.batch.per_host,
            )  # fmt: skip
            prompt = options.wishes.digest(settings.model)
            yield RowWork(images, fleet, prompt, options.id_field, options.note_field)


def _folder_of(place: str) -> Path:
    return Path.cwd() if is_url(place) else Path(place).absolute().parent


def _refuse_itself(options: Options, places: Places) -> None:
    if any(same(options.input, str(place)) for place in (places.output, places.rows, places.errors, places.journal)):
        raise RequestError("The input and the output are one file. Name another output.")


@contextmanager
def _journal(places: Places, options: Options) -> Any:
    """The journal, with what stands in the way of the mode refused or removed.

    Raises:
        RequestError: there is an output already, or none to go on with; another run is on it.
    """
    there, made = places.journal.exists(), places.rows.exists() or exists(places.output)
    if options.mode == "new" and (there or made):
        raise RequestError(
            f"{places.output} is there already. Go on with --resume or --retry-failed; --overwrite begins anew."
        )
    if options.mode in ("resume", "retry") and made and not there:
        raise RequestError(
            f"{places.output} is there, but not its journal {places.journal}: what it holds is not known. --overwrite "
            "begins anew."
        )
    if options.mode == "overwrite":
        if there:
            # Opened first: a run that is under way must not lose its files.
            try:
                Journal.open(places.journal).close()
            except Held:
                raise
            except RequestError:
                pass  # no journal, or a damaged one
        for path in (places.rows, places.errors, *_parts(places.journal)):
            try:
                path.unlink(missing_ok=True)
            except OSError as error:
                raise StorageError(f"{path} can't be removed: {error.strerror or error}.") from error
    with closing(Journal.open(places.journal)) as journal:
        yield journal


def _parts(journal: Path) -> list[Path]:
    return [journal, *(journal.with_name(journal.name + end) for end in ("-wal", "-shm"))]


def _agree(journal: Journal, options: Options, settings: Settings, work: Any, selection: Selection) -> None:
    """
    Raises:
        RequestError: the output was begun in another way; it would be half one and half the other.
    """
    now = {
        "model": work.model,
        "prompt": options.wishes.digest(settings.model),
        "trends": options.wishes.trends,
        "selection": "all" if selection.everything else f"{selection.description}: {selection.synthetic.pattern}",
        "offset": options.offset,
        "image-field": options.image_field or "",
        "id-field": options.id_field,
        "note-field": options.note_field or "",
    }
    before = journal.told("options")
    if before is None:
        journal.tell(options=now)
        return
    other = [name for name in now if before.get(name) != now[name]]
    if other:
        # Of prompt, length and sampling only a hash is known.
        told = ", ".join(
            "prompt or sampling" if name == "prompt" else f"{name} (was {before.get(name)!r}, is {now[name]!r})"
            for name in other
        )
        raise RequestError(
            f"This output was begun with other options: {told}. Give the same, or another output; --overwrite begins "
            "anew."
        )


def _limit(journal: Journal, options: Options) -> int | None:
    """The limit of this run. It may grow from run to run; trying failed rows again keeps it."""
    told: list[int | None] | None = journal.told("limit")
    limit = options.limit
    if told is not None:
        before = told[0]
        if limit is None and options.mode == "retry":
            return before
        if limit is not None and (before is None or limit < before):
            raise RequestError(
                f"--limit was {before or 'none'} when this output was begun; it may grow and not shrink."
            )
    journal.tell(limit=[limit])
    return limit


# --- before a run


@dataclass(frozen=True, slots=True)
class Probe:
    """What a dry run found: the input counted, a few rows tried. ``seconds`` and ``usage`` are of those."""

    lines: int
    selected: int
    malformed: int
    tried: int
    failed: int
    seconds: float
    usage: Usage
    reasons: tuple[str, ...]

    @property
    def estimate_s(self) -> float | None:
        """For all selected rows, at the pace of the probe."""
        return self.seconds / self.tried * self.selected if self.tried else None


async def probe(options: Options, settings: Settings, rows: int) -> Probe:
    """Counts the input, and captions the first ``rows`` selected records of it. Writes nothing but the image cache.

    Raises:
        TrendragError: as ``run`` would.
    """
    source, selection = prepared(options, settings)
    lines, selected, malformed, tried = await asyncio.to_thread(_counted, source, selection, rows)
    async with opened_work(options, settings, source) as (work, _):
        began = asyncio.get_running_loop().time()
        settled = await asyncio.gather(*(work.settle(record, line, {}) for record, line in tried))
        seconds = asyncio.get_running_loop().time() - began
    bad = [each for each in settled if each.state == "failed"]
    reasons = tuple(dict.fromkeys(str(each.result["reason"]) for each in bad))
    return Probe(lines, selected, malformed, len(tried), len(bad), seconds, work.usage, reasons[:3])


def _counted(source: Source, selection: Selection, rows: int) -> tuple[int, int, int, list[tuple[Record, bytes]]]:
    lines = selected = malformed = 0
    tried: list[tuple[Record, bytes]] = []
    for number, raw in enumerate(source.lines(), 1):
        lines += 1
        try:
            if not raw.strip() or not selection.takes(record := parse(number, raw)):
                continue
        except Malformed:
            malformed += 1
            continue
        selected += 1
        if selection.offset < selected and len(tried) < rows:
            tried.append((record, line_hash(raw)))
    selected = max(0, selected - selection.offset)
    return lines, selected if selection.limit is None else min(selected, selection.limit), malformed, tried
