"""The files that a run writes, and how they stand to the journal's mark.

Lines are added at their ends, in input order. Where rows in the middle change (failed ones that were tried again), all
of it is written anew beside them, and put in their place at the end.
"""

import json
from contextlib import suppress
from dataclasses import replace as changed
from pathlib import Path

from serving.batch.journal import Journal, Mark, Settled
from serving.batch.output import Appended, TooShort, replace
from serving.batch.records import Record, with_fields

_NEW = ".new"


class Files:
    """``rewriting`` writes all anew; so does a file that is shorter than the mark says. ``mark`` is where to begin."""

    def __init__(self, output: Path, errors: Path, packed: str, journal: Journal, *, rewriting: bool) -> None:
        self._output = output
        self._errors = errors
        self._journal = journal
        self.mark = journal.mark
        # Small pieces make packed files larger; what waits for its piece is in the journal.
        self.longest_wait_s = 30.0 if packed else 2.0
        # Told before the first row is tried again: whoever goes on after a crash must write all anew too.
        self._rewriting = rewriting or bool(journal.told("stale"))
        if not self._rewriting:
            try:
                self._open(output, errors, packed)
                return
            except TooShort:
                self._rewriting = True
        journal.tell(stale=True)
        self.mark = Mark()
        self._open(_beside(output), _beside(errors), packed)

    def _open(self, output: Path, errors: Path, packed: str) -> None:
        self._out = Appended(output, packed, self.mark.output_bytes)
        try:
            self._err = Appended(errors, "", self.mark.errors_bytes)
        except BaseException:
            self._out.close()
            raise

    def add(self, record: Record | None, raw: bytes, settled: Settled, id_field: str) -> None:
        """The next row, in input order. ``record`` is None where the line is none."""
        if record is not None and settled.state == "done":
            self._out.add(with_fields(record, settled.result))
            return
        told = {"line": settled.number, **({"id": record.identity(id_field)} if record else {}), **settled.result}
        text = json.dumps(told, ensure_ascii=False)
        if record is not None:
            self._err.add(f'{text[:-1]}, "record": {record.text}}}')
        else:
            kept = json.dumps(raw.decode("utf-8", "backslashreplace"), ensure_ascii=False)
            self._err.add(f'{text[:-1]}, "raw": {kept}}}')

    @property
    def due(self) -> bool:
        return self._out.due or self._err.due

    @property
    def kept(self) -> bool:
        return self._out.kept or self._err.kept

    def flush(self, mark: Mark, journal: Journal) -> None:
        """All that was added is on the disk, and the mark says so. A rewriting run has no mark before its end."""
        self._out.flush()
        self._err.flush()
        self.mark = changed(mark, output_bytes=self._out.size, errors_bytes=self._err.size)
        if not self._rewriting:
            journal.set_mark(self.mark)

    def finish(self) -> None:
        """To be called once all rows are written."""
        self.close()
        if self._rewriting:
            replace(_beside(self._output), self._output)
            replace(_beside(self._errors), self._errors)
            # From here on the files are whole; were this not told, they would be written anew once more.
            self._journal.set_mark(self.mark, stale=False)
        if not self.mark.errors_bytes:
            self._errors.unlink(missing_ok=True)

    def close(self) -> None:
        self._out.close()
        self._err.close()

    def abandon(self) -> None:
        """The run ends before its end. What was written beside is made again next time."""
        self.close()
        if self._rewriting:
            for path in (self._output, self._errors):
                with suppress(OSError):
                    _beside(path).unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(path.name + _NEW)
