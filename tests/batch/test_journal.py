"""The journal against a model of it: what was noted is there after every kind of end, and nothing else."""

import sqlite3
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from serving.batch.journal import Journal, Mark, Settled
from trendrag.errors import RequestError

RECORDS = (b"record-1", b"record-2")
ROWS = st.builds(
    lambda number, done, key, text: Settled(
        number, b"line", "done" if done else "failed", key, {"vlm_caption" if done else "reason": text}
    ),
    st.integers(1, 40),
    st.booleans(),
    st.sampled_from([b"", *(record + b"key of 16 bytes%d" % number for record in RECORDS for number in (1, 2))]),
    st.text(max_size=10),
)
MARKS = st.builds(Mark, st.integers(0, 40), st.integers(0, 40), st.just("ab"), st.integers(0, 9999), st.integers(0, 99))


class JournalMachine(RuleBasedStateMachine):
    """Notes rows and marks, dies between any two steps and within a note, and opens again."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = TemporaryDirectory()
        self.path = Path(self.folder.name) / "j"
        self.journal: Journal = Journal.open(self.path)
        self.rows: dict[int, Settled] = {}
        self.mark = Mark()

    @rule(rows=st.lists(ROWS, max_size=8))
    def note(self, rows: list[Settled]) -> None:
        self.journal.note(rows)
        self.rows |= {row.number: row for row in rows}

    @rule(rows=st.lists(ROWS, min_size=1, max_size=8))
    def die_while_noting(self, rows: list[Settled]) -> None:
        def broken() -> object:
            yield from rows
            raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.journal.note(broken())  # type: ignore[arg-type]  # an iterable, whose end is an exception
        self.open_again()

    @rule(mark=MARKS)
    def move(self, mark: Mark) -> None:
        self.journal.set_mark(mark)
        self.mark = mark

    @rule()
    def open_again(self) -> None:
        self.journal.close()
        self.journal = Journal.open(self.path)

    @precondition(lambda self: self.path.exists())
    @rule()
    def another_is_refused(self) -> None:
        with pytest.raises(RequestError, match="Another run"):
            Journal.open(self.path)

    @invariant()
    def agrees(self) -> None:
        assert self.journal.settled(1, 40) == self.rows
        assert self.journal.settled(10, 20) == {n: row for n, row in self.rows.items() if 10 <= n <= 20}
        assert self.journal.mark == self.mark
        done = [row for row in self.rows.values() if row.state == "done"]
        assert self.journal.counts() == {"done": len(done), "failed": len(self.rows) - len(done)}
        for record in (b"record-1", b"record-2", b"record-3"):
            alike = self.journal.alike(record)
            assert alike.keys() == {row.key for row in done if row.key.startswith(record)}
            assert all(any(row.key == key and row.result == alike[key] for row in done) for key in alike)

    def teardown(self) -> None:
        self.journal.close()
        self.folder.cleanup()


JournalMachine.TestCase.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
TestJournal = JournalMachine.TestCase


def test_what_is_no_journal_is_not_touched(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to be taken for one" * 100)
    with pytest.raises(RequestError, match="no journal"):
        Journal.open(tmp_path / "text")
    with sqlite3.connect(tmp_path / "other") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(RequestError, match="no journal"):
        Journal.open(tmp_path / "other")
    assert (tmp_path / "text").read_text().startswith("not a database")
