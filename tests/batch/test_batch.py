"""Runs over small archives: what comes out, what failed and why, and how they go on."""

import asyncio
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pyarrow
import pytest
from langchain_core.runnables import RunnableGenerator
from pyarrow import parquet

from serving.batch import fleet
from serving.batch.captions import ChainCaptioner, Wishes
from serving.batch.places import Places
from serving.batch.run import Options, probe
from serving.images import prepare_image
from tests.batch.archive import bare, batch, caption, captions_of, names, pictures, read, record, settings_for, write
from tests.batch.model_server import ModelServer, picture, serving
from trendrag.errors import ModelUnavailable, RequestError, StorageError, TrendragError
from trendrag.settings import ImageSettings
from trendrag.types import CandidateDone, CaptionEvent, CaptionRequest, Done, Timings, Usage


async def test_every_selected_record_gets_a_caption_in_input_order_and_keeps_its_fields(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 20)
    odd = {"big": 12345678901234567890123, "nested": {"é": [1, 2.50, None]}, "text": "a\u2028b 😀"}
    records = [record(number, **odd) for number in range(20)]
    write(tmp_path / "in.jsonl", records)
    async with serving() as server:
        summary = await batch(tmp_path, server)
    rows = read(tmp_path / "out.jsonl")
    assert [bare(row) for row in rows] == records
    assert [row["vlm_caption"] for row in rows] == [caption(number) for number in range(20)]
    assert {row["vlm_model"] for row in rows} == {"tiny"}
    assert all(row["vlm_captioned_at"].endswith("Z") and "." in row["vlm_captioned_at"] for row in rows)
    assert summary.counts == {"done": 20, "failed": 0}
    assert summary.usage.completion_tokens == 200
    assert not (tmp_path / "out.errors.jsonl").exists()


async def test_bad_rows_are_told_with_their_reason_and_stop_nobody(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 10)
    (tmp_path / "photos" / "3.jpg").write_bytes(b"this is no picture")
    (tmp_path / "secret.jpg").write_bytes(b"x")
    lines: list[dict[str, object] | bytes] = [record(number) for number in range(10)]
    lines[4] = b'{"id": "r4", "image_path": '
    lines[5] = b"[1, 2]"
    lines[6] = b'{"id": "r6", "description": "\xff"}'
    lines[7] = record(7, image_path="photos/absent.jpg")
    lines[8] = record(8, image_path="../../etc/hosts")
    lines.append({"id": "r10", "description": ""})
    write(tmp_path / "in.jsonl", lines)
    async with serving() as server:
        summary = await batch(tmp_path, server)
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in (0, 1, 2, 9)}
    errors = {row["line"]: row for row in read(tmp_path / "out.errors.jsonl")}
    assert list(errors) == [4, 5, 6, 7, 8, 9, 11]
    codes = {line: row["code"] for line, row in errors.items()}
    assert codes == {
        4: "invalid_image", 5: "malformed_line", 6: "malformed_line", 7: "malformed_line", 8: "invalid_image",
        9: "address_refused", 11: "invalid_image",
    }  # fmt: skip
    assert errors[5]["raw"] == '{"id": "r4", "image_path": '
    assert errors[8]["record"] == lines[7]
    assert errors[8]["id"] == "r7"
    assert "--image-field" in errors[11]["reason"]
    assert summary.counts == {"done": 4, "failed": 7}


async def test_paths_lead_neither_out_of_the_folder_nor_to_what_is_no_file(tmp_path: Path) -> None:
    archive = tmp_path / "archive"
    archive.mkdir()
    pictures(archive / "photos", 1)
    pictures(tmp_path / "private", 1)
    (archive / "photos" / "link.jpg").symlink_to(tmp_path / "private" / "0.jpg")
    os.mkfifo(archive / "photos" / "pipe.jpg")
    places = [
        "photos/0.jpg",
        "photos/link.jpg",
        "photos/pipe.jpg",
        "photos",
        str(tmp_path / "private" / "0.jpg"),
        "a\0b",
    ]
    write(archive / "in.jsonl", [record(number, image_path=place) for number, place in enumerate(places)])
    async with serving() as server:
        await batch(archive, server)
    assert list(captions_of(archive / "out.jsonl")) == ["r0"]
    codes = [row["code"] for row in read(archive / "out.errors.jsonl")]
    assert codes == ["address_refused", "invalid_image", "invalid_image", "address_refused", "invalid_image"]


async def test_only_records_with_a_synthetic_description_are_taken_unless_all_are_wanted(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 7)
    said = [
        "Parc Lafontaine. Capturée ou datée de Décennie 1930.", "The fountain at noon, by R. Roy", "", None,
        "Gare. CAPTURE\u0301E OU DATE\u0301E du 3 mai 1931", "Harbour. Captured or dated in 1960", "Un port capturé",
    ]  # fmt: skip
    write(tmp_path / "in.jsonl", [record(number, description=text) for number, text in enumerate(said)])
    async with serving() as server:
        await batch(tmp_path, server)
        assert list(captions_of(tmp_path / "out.jsonl")) == ["r0", "r2", "r3", "r4", "r5"]
        await batch(tmp_path, server, output=str(tmp_path / "all.jsonl"), everything=True)
        assert len(captions_of(tmp_path / "all.jsonl")) == 7
        await batch(tmp_path, server, output=str(tmp_path / "own.jsonl"), synthetic="by R\\. Roy$")
        assert list(captions_of(tmp_path / "own.jsonl")) == ["r1", "r2", "r3"]
        await batch(tmp_path, server, output=str(tmp_path / "some.jsonl"), offset=1, limit=3)
        assert list(captions_of(tmp_path / "some.jsonl")) == ["r2", "r3", "r4"]


async def test_a_run_goes_on_where_it_was_and_asks_for_nothing_twice(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 30)
    write(tmp_path / "in.jsonl", [record(number) for number in range(30)])
    async with serving() as server:
        await batch(tmp_path, server, limit=10)
        assert len(read(tmp_path / "out.jsonl")) == 10
        with pytest.raises(RequestError, match="--resume"):
            await batch(tmp_path, server)
        await batch(tmp_path, server, mode="resume")
        await batch(tmp_path, server, mode="resume")
        with pytest.raises(RequestError, match="limit"):
            await batch(tmp_path, server, mode="resume", limit=5)
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in range(30)}
    assert set(server.calls.values()) == {1}


async def test_failed_rows_are_tried_again_on_demand_and_stand_in_input_order(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 12)
    write(tmp_path / "in.jsonl", [record(number) for number in range(12)])
    for number in (2, 11):
        (tmp_path / "photos" / f"{number}.jpg").rename(tmp_path / f"{number}.away")
    async with serving() as server:
        first = await batch(tmp_path, server)
        assert first.counts == {"done": 10, "failed": 2}
        (tmp_path / "2.away").rename(tmp_path / "photos" / "2.jpg")
        assert (await batch(tmp_path, server, mode="resume")).counts == {"done": 10, "failed": 2}
        assert (await batch(tmp_path, server, mode="retry")).counts == {"done": 11, "failed": 1}
        assert [row["line"] for row in read(tmp_path / "out.errors.jsonl")] == [12]
        (tmp_path / "11.away").rename(tmp_path / "photos" / "11.jpg")
        assert (await batch(tmp_path, server, mode="retry")).counts == {"done": 12, "failed": 0}
    assert list(captions_of(tmp_path / "out.jsonl")) == [f"r{number}" for number in range(12)]
    assert not (tmp_path / "out.errors.jsonl").exists()
    assert set(server.calls.values()) == {1}
    assert names(tmp_path) == {"in.jsonl", "out.jsonl", "out.journal", "photos"}


async def test_trying_failed_rows_again_leaves_out_none_that_were_done(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 9)
    write(tmp_path / "in.jsonl", [record(number, image_path=f"photos/{number + 1}.jpg") for number in range(9)])
    async with serving() as server:
        await batch(tmp_path, server, limit=9)
        summary = await batch(tmp_path, server, mode="retry")
    assert summary.counts == {"done": 8, "failed": 1}
    assert len(read(tmp_path / "out.jsonl")) == 8


@pytest.mark.parametrize("where", ["before the mark", "after it"])
async def test_an_input_that_changed_is_noticed(tmp_path: Path, where: str) -> None:
    pictures(tmp_path / "photos", 6)
    records = [record(number) for number in range(6)]
    write(tmp_path / "in.jsonl", records)
    async with serving() as server:
        await batch(tmp_path, server, limit=4)
        if where == "after it":
            (tmp_path / "out.jsonl").write_bytes(b"")  # so that all is written anew, out of the journal
        write(tmp_path / "in.jsonl", [*records[:2], record(2, title="another"), *records[3:]])
        with pytest.raises(RequestError, match="input is not the one"):
            await batch(tmp_path, server, mode="resume")
        write(tmp_path / "in.jsonl", [*records, record(5, id="r6")])
        await batch(tmp_path, server, mode="resume")
    assert captions_of(tmp_path / "out.jsonl") == {f"r{n}": caption(min(n, 5)) for n in range(7)}


async def test_other_options_are_refused_where_an_output_was_begun(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 2)
    write(tmp_path / "in.jsonl", [record(0), record(1)])
    async with serving() as server:
        await batch(tmp_path, server)
        with pytest.raises(RequestError, match="prompt"):
            await batch(tmp_path, server, mode="resume", wishes=Wishes("alt"))
        with pytest.raises(RequestError, match="selection"):
            await batch(tmp_path, server, mode="resume", everything=True)
        await batch(tmp_path, server, mode="overwrite", wishes=Wishes("alt"))
    assert set(server.calls.values()) == {2}


async def test_an_output_that_somebody_cut_or_removed_is_made_again_without_the_model(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 8)
    write(tmp_path / "in.jsonl", [record(number) for number in range(8)])
    async with serving() as server:
        await batch(tmp_path, server)
        whole = (tmp_path / "out.jsonl").read_bytes()
        for left in (whole[:700], None):
            if left is None:
                (tmp_path / "out.jsonl").unlink()
            else:
                (tmp_path / "out.jsonl").write_bytes(left)
            await batch(tmp_path, server, mode="resume")
            assert (tmp_path / "out.jsonl").read_bytes() == whole
    assert set(server.calls.values()) == {1}


async def test_a_damaged_journal_ends_the_run_and_not_its_rows(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 2)
    write(tmp_path / "in.jsonl", [record(0), record(1)])
    async with serving() as server:
        await batch(tmp_path, server, limit=1)
        with (tmp_path / "out.journal").open("r+b") as file:
            file.seek(4096)  # SQLite's own page stays, and says that it is ours
            file.write(b"\x55" * (os.fstat(file.fileno()).st_size - 4096))
        with pytest.raises(StorageError, match="damaged"):
            await batch(tmp_path, server, mode="resume")
        assert len(read(tmp_path / "out.jsonl")) == 1
        await batch(tmp_path, server, mode="overwrite")
    assert list(captions_of(tmp_path / "out.jsonl")) == ["r0", "r1"]


async def test_what_was_written_beyond_the_mark_is_cut_off(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 4)
    write(tmp_path / "in.jsonl", [record(number) for number in range(4)])
    async with serving() as server:
        await batch(tmp_path, server, limit=2)
        with (tmp_path / "out.jsonl").open("ab") as file:
            file.write(b'{"id": "half a li')
        await batch(tmp_path, server, mode="resume")
    assert list(captions_of(tmp_path / "out.jsonl")) == ["r0", "r1", "r2", "r3"]


async def test_two_runs_on_one_output_are_refused(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 4)
    write(tmp_path / "in.jsonl", [record(number) for number in range(4)])
    async with serving(ModelServer(delay_s=1.5)) as server:
        first = asyncio.create_task(batch(tmp_path, server))
        await server.asked(1)
        for mode in ("resume", "overwrite", "retry"):
            with pytest.raises(RequestError, match="Another run"):
                await batch(tmp_path, server, mode=mode)
        assert (await first).counts == {"done": 4, "failed": 0}


async def test_one_record_twice_is_asked_for_once(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 1)
    write(tmp_path / "in.jsonl", [record(0), record(0, title="again")])
    async with serving() as server:
        await batch(tmp_path, server, limit=1)
        await batch(tmp_path, server, mode="resume")
    first, second = read(tmp_path / "out.jsonl")
    assert first["vlm_caption"] == second["vlm_caption"]
    assert set(server.calls.values()) == {1}


async def test_a_row_that_the_server_refuses_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 6)
    write(tmp_path / "in.jsonl", [record(number) for number in range(6)])
    poisoned = caption(3)[18:30]
    async with serving(ModelServer(status=lambda name: 400 if name == poisoned else 200)) as server:
        summary = await batch(tmp_path, server)
    assert summary.counts == {"done": 5, "failed": 1}
    (error,) = read(tmp_path / "out.errors.jsonl")
    assert (error["id"], error["code"]) == ("r3", "model_rejected")


async def test_a_server_that_fails_at_every_row_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet, "_FIRST_WAIT_S", 0.01)
    pictures(tmp_path / "photos", 60)
    write(tmp_path / "in.jsonl", [record(number) for number in range(60)])
    async with serving(ModelServer(status=lambda _: 500)) as server:
        with pytest.raises(ModelUnavailable, match="--retry-failed"):
            await batch(tmp_path, server, concurrency=4)
        assert len(read(tmp_path / "out.errors.jsonl")) < 60
        server.status = lambda _: 200
        assert (await batch(tmp_path, server, mode="retry", concurrency=4)).counts == {"done": 60, "failed": 0}


async def test_a_server_that_goes_away_is_waited_for_and_no_row_fails(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 40)
    write(tmp_path / "in.jsonl", [record(number) for number in range(40)])
    async with serving(ModelServer(delay_s=0.05)) as server:
        running = asyncio.create_task(batch(tmp_path, server, concurrency=4))
        await server.asked(10)
        server.away = True
        await server.turned_away(6)
        server.away = False
        summary = await running
    assert summary.counts == {"done": 40, "failed": 0}
    assert len(captions_of(tmp_path / "out.jsonl")) == 40


async def test_a_server_that_stays_away_ends_the_run_and_nothing_is_lost(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 12)
    write(tmp_path / "in.jsonl", [record(number) for number in range(12)])
    async with serving(ModelServer(delay_s=0.05)) as server:
        running = asyncio.create_task(batch(tmp_path, server, concurrency=1, patience_s=1))
        await server.asked(5)
        server.away = True
        with pytest.raises(ModelUnavailable, match="--resume"):
            await running
        assert 3 <= len(read(tmp_path / "out.jsonl")) <= 5
        server.away = False
        summary = await batch(tmp_path, server, mode="resume")
    assert summary.counts == {"done": 12, "failed": 0}
    assert list(captions_of(tmp_path / "out.jsonl")) == [f"r{number}" for number in range(12)]


async def test_rows_are_spread_over_servers_and_one_that_goes_away_is_left_out(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 60)
    write(tmp_path / "in.jsonl", [record(number) for number in range(60)])
    async with serving(ModelServer(delay_s=0.05)) as one, serving(ModelServer(delay_s=0.05)) as other:
        running = asyncio.create_task(batch(tmp_path, one, servers=(one.base_url, other.base_url), concurrency=2))
        await one.asked(5)
        await other.asked(5)
        other.away = True
        summary = await running
    assert summary.counts == {"done": 60, "failed": 0}
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in range(60)}
    assert one.calls.total() > 40


async def test_cancelled_it_keeps_what_is_finished(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 20)
    write(tmp_path / "in.jsonl", [record(number) for number in range(20)])
    async with serving(ModelServer(delay_s=0.1)) as server:
        running = asyncio.create_task(batch(tmp_path, server, concurrency=2))
        await server.asked(9)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert len(read(tmp_path / "out.jsonl")) >= 6
        await batch(tmp_path, server, mode="resume")
    assert captions_of(tmp_path / "out.jsonl") == {f"r{number}": caption(number) for number in range(20)}


async def test_a_folder_of_images_makes_its_own_records(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 3)
    (tmp_path / "photos" / "deep").mkdir()
    (tmp_path / "photos" / "2.jpg").rename(tmp_path / "photos" / "deep" / "é 2.JPG")
    (tmp_path / "photos" / "notes.txt").write_text("no picture")
    async with serving() as server:
        await batch(tmp_path, server, input=str(tmp_path / "photos"))
    expected = {"0.jpg": caption(0), "1.jpg": caption(1), "deep/é 2.JPG": caption(2)}
    assert captions_of(tmp_path / "out.jsonl") == expected


async def test_odd_names_in_a_folder_are_names_and_no_addresses(tmp_path: Path) -> None:
    odd = [" lead.jpg", "a\nb.jpg", "http:x.jpg", "https:__y.JPG", "-dash.jpeg", ".hidden.jpg", "\udcff.jpg"]
    (tmp_path / "photos").mkdir()
    for number, name in enumerate(odd):
        (tmp_path / "photos" / name).write_bytes(picture(number))
    (tmp_path / "photos" / "gone.jpg").symlink_to("nowhere")
    (tmp_path / "photos" / "loop").symlink_to(".")
    async with serving() as server:
        await batch(tmp_path, server, input=str(tmp_path / "photos"))
    assert captions_of(tmp_path / "out.jsonl") == {name: caption(number) for number, name in enumerate(odd)}


async def test_a_record_twice_is_asked_for_once_even_while_it_is_under_way(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 2)
    write(tmp_path / "in.jsonl", [record(0), record(1), *[record(0)] * 30, record(0, id="another")])
    async with serving(ModelServer(delay_s=0.2)) as server:
        summary = await batch(tmp_path, server, concurrency=8)
    assert summary.counts == {"done": 33, "failed": 0}
    assert sorted(server.calls.values()) == [1, 2]  # one of the two pictures is that of two records
    assert summary.usage.completion_tokens == 30


async def test_a_record_twice_whose_first_fails_is_tried_for_each(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 1)
    write(tmp_path / "in.jsonl", [record(0)] * 3)
    async with serving(ModelServer(delay_s=0.1, status=lambda _: 400)) as server:
        assert (await batch(tmp_path, server)).counts == {"done": 0, "failed": 3}


async def test_what_the_embedded_engine_wrote_is_told_as_its_draft() -> None:
    draft = CandidateDone(candidate=0, text="A draft.", trend_ids=(), confidence=None)
    done = Done(usage=Usage(), timings=Timings(total=1.0), snapshot_id=None, model="small", draft=True)

    async def events(_: AsyncIterator[CaptionRequest]) -> AsyncIterator[CaptionEvent]:
        yield draft
        yield done

    async def there() -> None: ...

    captioner = ChainCaptioner(RunnableGenerator(events), "small", Wishes(), there)
    image = prepare_image(picture(1), ImageSettings())
    assert (await captioner.caption(captioner.asked(image, None))).model == "embedded-draft/small"


async def test_a_dry_run_counts_tries_and_writes_nothing(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 5)
    records = [record(number) for number in range(5)]
    write(tmp_path / "in.jsonl", [*records, b"nonsense", record(6, description="real words by somebody")])
    async with serving() as server:
        options = Options(input=str(tmp_path / "in.jsonl"), output=str(tmp_path / "out.jsonl"))
        found = await probe(options, settings_for(tmp_path, server), 3)
    assert (found.lines, found.selected, found.malformed, found.tried, found.failed) == (7, 5, 1, 3, 0)
    assert found.estimate_s is not None
    assert found.estimate_s > 0
    assert names(tmp_path) == {"in.jsonl", "photos"}


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"output": "out.csv"}, "written as"),
        ({"input": "absent.jsonl"}, "can't be read"),
        ({"input": "in.csv"}, "records are read from"),
        ({"output": "nowhere/out.jsonl"}, "no folder"),
        ({"synthetic": "("}, "regular expression"),
        ({"wishes": Wishes("no-such-prompt")}, "prompt"),
        ({"wishes": Wishes("describe", trends=True)}, "--with-trends"),
        ({"output": "in.jsonl", "mode": "overwrite"}, "one file"),
        ({"output": "link.jsonl", "mode": "overwrite"}, "one file"),
        ({"input": "in.parquet", "output": "in.parquet", "mode": "overwrite"}, "one file"),
        ({"output": "made.parquet"}, "is there already"),
        ({"output": "made.parquet", "mode": "resume"}, "not its journal"),
        ({"output": "folder.jsonl", "mode": "overwrite"}, "can't be removed"),
        ({"output": "../../../../../../../../proc/out.jsonl"}, "may write"),
        ({"images": Path("/no/such/folder")}, "no folder of images"),
    ],
)
async def test_what_can_not_be_is_said_before_anything_is_written(
    tmp_path: Path, options: dict[str, object], says: str
) -> None:
    write(tmp_path / "in.jsonl", [record(0)])
    (tmp_path / "in.csv").write_text("a,b\n")
    (tmp_path / "link.jsonl").symlink_to("in.jsonl")
    for name in ("in.parquet", "made.parquet"):
        parquet.write_table(pyarrow.table({"id": [1]}), tmp_path / name)
    before = {name: (tmp_path / name).read_bytes() for name in names(tmp_path)}
    (tmp_path / "folder.jsonl").mkdir()
    given = {key: str(tmp_path / str(value)) if key in ("input", "output") else value for key, value in options.items()}
    async with serving() as server:
        with pytest.raises(TrendragError, match=says):
            await batch(tmp_path, server, **given)
    assert {name: (tmp_path / name).read_bytes() for name in before} == before
    assert names(tmp_path) - {"folder.jsonl", "out.journal"} == before.keys()


async def test_own_prompts_are_sent_with_the_note(tmp_path: Path) -> None:
    pictures(tmp_path / "photos", 1)
    (tmp_path / "own.txt").write_text("Décris la photo. {note}")
    write(tmp_path / "in.jsonl", [record(0, place="Parc <b>Lafontaine</b>")])
    async with serving(ModelServer(keep_bodies=True)) as server:
        await batch(tmp_path, server, wishes=Wishes(str(tmp_path / "own.txt")), note_field="place")
    text = json.dumps(server.bodies[0], ensure_ascii=False)
    assert "Décris la photo. Parc" in text
    assert "<b>" not in text
    assert not server.bodies[0].get("stream")


def test_the_files_of_a_run_stand_beside_its_output(tmp_path: Path) -> None:
    for name in ("out.jsonl", "out.jsonl.gz", "out.parquet"):
        places = Places.of(str(tmp_path / name), tmp_path / "var")
        assert places.errors == tmp_path / "out.errors.jsonl"
        assert places.journal == tmp_path / "out.journal"
