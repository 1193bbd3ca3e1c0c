"""A run is kept whole or not at all, and read strictly."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from evals.record import ITEMS, RUN, Batch, Item, Lit, Measure, Run, load, new_id, save, saved
from trendrag.errors import RequestError

AT = datetime(2026, 11, 22, 2, 41, tzinfo=UTC)


def a_run(**other: object) -> Run:
    return Run.model_validate(
        {"id": "20261122T024100Z-caption-1", "task": "caption", "created_at": AT, "measures": [Measure(name="CIDEr")]}
        | other
    )


def test_what_was_saved_is_what_is_read(tmp_path: Path) -> None:
    run = a_run(batches=[Batch(id="may", created_at=AT)], figures={"tokens/s": 81.5}, settings={"k": 8})
    items = (
        Item(
            id="1",
            scores={"CIDEr": 0.5},
            output="A cat\u2028sits",
            lit=(Lit(start=2, end=5, phrase="cat"),),
            batch="may",
        ),
        Item(id="2", scores={"CIDEr": None}, error="the server was away"),
    )
    folder = save(run, items, tmp_path)
    found = load(folder, tmp_path)
    assert (found.run, found.items) == (run, items)
    assert [item.id for item in found.failures] == ["2"]
    assert load(run.id[:12], tmp_path) == found
    assert load(folder / RUN, tmp_path) == found
    assert saved(tmp_path) == [run.id]


@given(st.text(), st.text(max_size=50))
def test_any_text_of_a_model_comes_back_as_it_was(output: str, reference: str) -> None:
    item = Item(id="1", output=output, references=(reference,))
    line = item.model_dump_json(exclude_defaults=True)
    assert "\n" not in line
    assert Item.model_validate_json(line) == item


def test_a_run_is_never_written_over(tmp_path: Path) -> None:
    save(a_run(), [Item(id="1")], tmp_path)
    with pytest.raises(RequestError, match="already"):
        save(a_run(), [Item(id="2")], tmp_path)
    assert [item.id for item in load(a_run().id, tmp_path).items] == ["1"]


def test_nothing_is_left_of_a_run_that_could_not_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Path, target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "rename", full)
    with pytest.raises(RequestError, match="No space left"):
        save(a_run(), [Item(id="1")], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        (RUN, "{", "run.json is not the record of a run"),
        (RUN, '{"format": 2}', "format"),
        (ITEMS, '{"id": "1"}\n{"id": "1"}\n', "twice"),
        (ITEMS, '{"id": "1"}\n{"name": "2"}\n', "line 2"),
        (ITEMS, '{"id": "1", "scores": {"CIDEr": "high"}}\n', "scores: CIDEr"),
        (ITEMS, '{"id": "1", "batch": "june"}\n', "june"),
        (ITEMS, '{"id": "1", "output": "a", "lit": [{"start": 0, "end": 2, "phrase": "x"}]}\n', "outside the output"),
    ],
)
def test_what_is_not_a_run_is_refused_with_the_place(tmp_path: Path, file: str, text: str, said: str) -> None:
    folder = save(a_run(), [Item(id="1")], tmp_path)
    (folder / file).write_text(text, "utf-8")
    with pytest.raises(RequestError, match=said):
        load(folder, tmp_path)


def test_unknown_and_ambiguous_names_are_explained(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="no run 'nothing'"):
        load("nothing", tmp_path)
    for end in ("a", "b"):
        save(a_run(id=f"2026-{end}"), [Item(id="1")], tmp_path)
    with pytest.raises(RequestError, match="2 runs begin with '2026'"):
        load("2026", tmp_path)
    assert load("2026-a", tmp_path).run.id == "2026-a"


def test_ids_sort_by_time_and_are_names_of_folders() -> None:
    first, second = new_id("trends on/off", AT), new_id("trends on/off", AT)
    assert first != second
    assert max(first, second) < new_id("trends on/off", AT + timedelta(microseconds=1))
    assert first.startswith("20261122T024100Z-trends-on-off-")
    assert Run.model_validate(a_run().model_dump() | {"id": first}).id == first
