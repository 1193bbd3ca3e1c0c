"""The law of a batch, over made-up archives and made-up deaths: however often it ends before its end, and at whatever
step, the output is that of a run that nobody disturbed, and no caption that was noted is asked for again."""

import asyncio
import json
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from hypothesis import given, settings
from hypothesis import strategies as st

from serving.batch import engine
from serving.batch.engine import Run
from serving.batch.files import Files
from serving.batch.journal import Journal, Known, Settled
from serving.batch.records import Record
from serving.batch.selection import Selection, compiled
from serving.batch.work import failed
from trendrag.errors import StorageError

KINDS = st.sampled_from(["good", "bad", "unselected", "malformed", "blank"])


class Given:
    """Lines that are there already."""

    read = None

    def __init__(self, lines: list[bytes]) -> None:
        self._lines = lines

    def lines(self) -> Iterator[bytes]:
        return iter(self._lines)


class Mortal(Journal):
    """Dies at its ``left``-th change, before it or right after it; and from then on it is dead."""

    left = 10**9
    after = False

    def note(self, settled: Iterable[Settled]) -> None:
        self._live(lambda: super(Mortal, self).note(settled))

    def tell(self, **values: object) -> None:
        self._live(lambda: super(Mortal, self).tell(**values))

    def _live(self, change: object) -> None:
        assert callable(change)
        self.left -= 1
        if self.left > 0 or (self.left == 0 and self.after):
            change()
        if self.left <= 0:
            raise StorageError("died")


def line(number: int, kind: str) -> bytes:
    if kind == "malformed":
        return b'{"id": '
    if kind == "blank":
        return b"  "
    return json.dumps({"id": number, "kind": kind, "description": "words" if kind == "unselected" else ""}).encode()


def expected(kinds: list[str]) -> tuple[list[int], list[int]]:
    """The ids of the output, the lines of the errors."""
    good = [number for number, kind in enumerate(kinds, 1) if kind == "good"]
    return good, [number for number, kind in enumerate(kinds, 1) if kind in ("bad", "malformed")]


async def once(
    folder: Path, kinds: list[str], asked: Counter[int], death: tuple[int, bool] | None, retry: bool
) -> None:
    """One life of a run, ended by its end or by the death that is given."""
    journal = Mortal.open(folder / "journal")
    if death is not None:
        journal.left, journal.after = death
    files = None
    try:

        async def work(record: Record, line: bytes, known: Known) -> Settled:
            asked[record.number] += 1
            await asyncio.sleep(0)
            for _ in range(record.number * 7 % 5):  # so that they don't end in order
                await asyncio.sleep(0)
            if record.fields["kind"] == "bad":
                return failed(record.number, line, "bad", "it is bad")
            return Settled(record.number, line, "done", b"", {"vlm_caption": f"caption {record.number}"})

        files = Files(folder / "out", folder / "errors", "", journal, rewriting=retry)
        source = Given([line(number, kind) for number, kind in enumerate(kinds, 1)])
        run = Run(source, Selection(compiled("never")), journal, files, work, lambda: 3, retry=retry)
        await run.run()
        files.finish()
    except StorageError:
        if files is not None:
            files.abandon()
        with (folder / "out").open("ab") as file:  # what the dead had not finished writing
            file.write(b'{"id": 1, "half')
    finally:
        journal.close()


def found(path: Path, name: str) -> list[int]:
    return [json.loads(row)[name] for row in path.read_bytes().splitlines()] if path.exists() else []


@settings(max_examples=40)
@given(
    st.lists(KINDS, min_size=1, max_size=40),
    st.lists(st.tuples(st.integers(1, 12), st.booleans(), st.booleans()), max_size=5),
)
def test_whatever_it_dies_of_the_output_is_whole(kinds: list[str], deaths: list[tuple[int, bool, bool]]) -> None:
    asked: Counter[int] = Counter()

    async def live() -> None:
        for left, after, retry in deaths:
            await once(folder, kinds, asked, (left, after), retry)
        await once(folder, kinds, asked, None, retry=False)

    with TemporaryDirectory() as name, patch.object(engine, "KEEP_EVERY_S", 0.0), patch.object(engine, "CHUNK_ROWS", 5):
        folder = Path(name)
        asyncio.run(live())
        good, bad = expected(kinds)
        assert found(folder / "out", "id") == good
        assert found(folder / "errors", "line") == bad
        before = asked.copy()
        asyncio.run(once(folder, kinds, asked, None, retry=False))
        assert asked == before
        asyncio.run(once(folder, kinds, asked, None, retry=True))
        assert asked == before + Counter(number for number in bad if kinds[number - 1] == "bad")
        assert found(folder / "out", "id") == good
        assert found(folder / "errors", "line") == bad
