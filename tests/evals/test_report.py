"""The report: best rows on top, nothing dropped, nothing fetched, and text that stays text."""

import json
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner

from evals.commands import evals
from evals.record import Batch, Item, Lit, Measure, Recorded, Run, runs_folder, save
from evals.report import html, markdown
from evals.report.build import Report, build
from evals.statistics import LATENCY

if TYPE_CHECKING:
    from playwright.sync_api import Page as BrowserPage

PHOTO = Path(__file__).parent.parent / "photos" / "coffee.jpg"
AT = datetime(2026, 11, 22, 2, 41, tzinfo=UTC)
HOSTILE = "<script>alert(1)</script> <img src=x onerror=alert(1)> \u202egnp.exe \"'&"
BATCHES = (Batch(id="may", created_at=datetime(2026, 5, 2, tzinfo=UTC)),)
CHROMIUM = os.environ.get("TRENDRAG_TEST_CHROMIUM") or shutil.which("chromium")


def a_run(name: str, scores: Sequence[float], **more: object) -> Recorded:
    items = [
        Item(
            id=f"photo {number}",
            scores={"CIDEr": score, "recall": number / 20},
            output=f"coffee number {number} of {name}",
            references=("a cup of coffee", "an espresso"),
            image=str(PHOTO),
            lit=(Lit(start=0, end=6, phrase="coffee", source="a feed", url="https://example.org/?a=1&b=2"),),
            latency_s=1 + number / 10,
            batch="may" if number < 5 else None,
        )
        for number, score in enumerate(scores)
    ]
    fields: dict[str, object] = {
        "id": name,
        "task": "caption",
        "created_at": AT,
        "measures": (Measure(name="CIDEr"), Measure(name="recall")),
        "batches": BATCHES,
    }
    return Recorded(run=Run.model_validate(fields | more), items=tuple(items))


RUNS = (
    a_run("low", [number / 40 for number in range(20)]),
    a_run("high", [number / 20 for number in range(20)], label="prompt 2", commit="c0ffee" * 8),
    a_run("middle", [number / 30 for number in range(20)]),
)


def built(*runs: Recorded) -> Report:
    return build(runs, AT)


def test_the_best_row_is_on_top_and_coloured_so() -> None:
    table = built(*RUNS).tables[0]
    assert [row.run.id for row in table.rows] == ["high", "middle", "low"]
    cider = [column.measure.name for column in table.columns].index("CIDEr")
    assert [row.cells[cider].decile for row in table.rows] == [9, 5, 0]
    for column, cell in zip(table.columns, table.rows[0].cells, strict=True):
        if column.measure.unit == "s" or column.measure.better is None:
            assert cell.decile is None
    recall = [column.measure.name for column in table.columns].index("recall")
    assert {row.cells[recall].decile for row in table.rows} == {5}  # equal figures, equal colours


def test_a_batch_has_columns_with_its_id_date_and_n() -> None:
    heads = [markdown.heading(column) for column in built(*RUNS).tables[0].columns]
    assert "CIDEr, may, 2026-05-02, n = 5" in heads
    assert f"{LATENCY.name}, may, 2026-05-02, n = 5" in heads


def test_one_run_alone_has_figures_and_no_colours() -> None:
    table = built(RUNS[0]).tables[0]
    assert {cell.decile for cell in table.rows[0].cells} == {None}
    assert table.comparisons == ()


def test_failures_notes_and_what_was_not_compared_are_said() -> None:
    broken = Recorded(
        run=RUNS[1].run.model_copy(update={"id": "broken", "notes": ("Java is not installed",)}),
        items=(*RUNS[1].items[:-1], Item(id="photo 19", error="503: overloaded")),
    )
    report = built(RUNS[0], broken)
    page = html.page(report, [RUNS[0], broken])
    for shown in (
        "1 of 20 items failed",
        "503: overloaded",
        "Java is not installed",
        "Not compared",
        "references differ",
    ):
        assert shown in page
    assert "| prompt 2 | 20 | 1 |" in markdown.page(report)


class Page(HTMLParser):
    """The tags, their attributes, and the text of a page."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data: str) -> None:
        self.text += data


def test_text_from_outside_stays_text() -> None:
    item = Item(
        id=HOSTILE,
        scores={HOSTILE: 1.0},
        input=HOSTILE,
        output=HOSTILE,
        references=(HOSTILE,),
        image=HOSTILE,
        lit=(
            Lit(start=0, end=8, phrase=HOSTILE, source=HOSTILE, url="javascript:alert(1)"),
            Lit(start=4, end=9, phrase="overlaps"),
        ),
    )
    run = RUNS[0].run.model_copy(
        update={
            "task": HOSTILE,
            "label": HOSTILE,
            "model": HOSTILE,
            "measures": (Measure(name=HOSTILE, about=HOSTILE),),
        }
        | {"notes": (HOSTILE,), "settings": {HOSTILE: HOSTILE}}
    )
    recorded = [Recorded(run=run, items=(item, Item(id="2", error=HOSTILE)))]
    report = build(recorded, AT)
    page = html.page(report, recorded)
    found = Page(page)
    assert [tag for tag, _ in found.tags].count("script") == 1  # ours
    assert "img" not in [tag for tag, _ in found.tags]
    for tag, attributes in found.tags:
        assert not [name for name in attributes if name.startswith("on")], tag
        assert not str(attributes.get("href", "")).startswith("javascript")
    assert "<script>alert(1)</script>" in found.text
    assert "\u202e" not in page
    assert "<script>" not in markdown.page(report)


def test_the_page_needs_nothing_else_and_allows_nothing_else() -> None:
    found = Page(html.page(built(*RUNS), RUNS))
    policy = next(
        str(attributes["content"])
        for tag, attributes in found.tags
        if tag == "meta" and attributes.get("http-equiv") == "Content-Security-Policy"
    )
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert not [attributes for _, attributes in found.tags if "style" in attributes]
    for tag, attributes in found.tags:
        assert str(attributes.get("src", "data:")).startswith("data:"), tag
    pictures = {attributes["src"] for tag, attributes in found.tags if tag == "img"}
    assert len(pictures) == 1  # the photo, made small
    assert len(str(pictures.pop())) < 60_000


def test_galleries_show_best_worst_and_moved_items_with_lit_trends() -> None:
    page = html.page(built(*RUNS), RUNS, gallery=3)
    found = Page(page)
    kinds = [attributes["data-kind"] for tag, attributes in found.tags if tag == "article"]
    assert (kinds.count("best"), kinds.count("worst"), kinds.count("moved")) == (9, 9, 6)
    marks = [attributes for tag, attributes in found.tags if tag == "mark"]
    assert {attributes["title"] for attributes in marks} == {"coffee · a feed"}
    assert 'href="https://example.org/?a=1&amp;b=2"' in page
    assert html.lit_text(RUNS[0].items[0]).endswith("</mark> number 0 of low")


def test_galleries_of_two_runs_are_open_and_of_more_wait_to_be_opened() -> None:
    for runs, opened in ((RUNS[:2], True), (RUNS, False)):
        found = Page(html.page(built(*runs), runs, gallery=3))
        galleries = [attributes for tag, attributes in found.tags if attributes.get("class") == "gallery"]
        assert galleries
        assert {"open" in attributes for attributes in galleries} == {opened}


def test_words_are_counted_of_what_a_model_wrote_and_not_of_other_answers() -> None:
    hits = [item.model_copy(update={"latency_s": None}) for item in RUNS[0].items]
    for items, counted in ((RUNS[0].items, True), (tuple(hits), False)):
        recorded = [Recorded(run=RUNS[0].run, items=items)]
        table = build(recorded, AT).tables[0]
        assert ("words" in [column.measure.name for column in table.columns]) is counted
        assert ("Lengths" in html.page(build(recorded, AT), recorded)) is counted


def test_an_image_that_is_none_is_said_to_be_missing(tmp_path: Path) -> None:
    (tmp_path / "no.jpg").write_bytes(b"\xff\xd8 this is no image")
    for path in (tmp_path / "no.jpg", tmp_path, tmp_path / "absent.jpg"):
        item = RUNS[0].items[0].model_copy(update={"image": str(path)})
        recorded = [Recorded(run=RUNS[0].run, items=(item,))]
        page = html.page(build(recorded, AT), recorded)
        assert "image not found" in page
        assert "<img" not in page


@pytest.mark.parametrize(
    "items", [(), (Item(id="1", error="away"),), (Item(id="1", output="", scores={"CIDEr": 0.0}),)]
)
def test_a_run_of_nothing_has_a_report(items: tuple[Item, ...]) -> None:
    recorded = [Recorded(run=RUNS[0].run, items=items)]
    assert "caption" in html.page(build(recorded, AT), recorded)


def test_the_command_writes_what_it_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRENDRAG_DATA_DIR", str(tmp_path))
    for each in RUNS:
        save(each.run, each.items, runs_folder(tmp_path))
    paths = {name: tmp_path / f"report.{name}" for name in ("html", "md", "json")}
    options = [part for name, path in paths.items() for part in (f"--{name}", str(path))]
    result = CliRunner().invoke(evals, ["report", "low", "high", *options])
    assert result.exit_code == 0, result.output
    assert paths["html"].read_text("utf-8").startswith("<!doctype html>")
    assert Report.model_validate_json(paths["json"].read_bytes()).tables[0].rows[0].run.id == "high"
    assert json.loads(paths["json"].read_bytes())["tables"][0]["comparisons"][0]["changes"][0]["verdict"] == "better"
    printed = CliRunner().invoke(evals, ["report", "low", "high"]).output
    strip = re.compile(r"\d\d:\d\d UTC")
    assert strip.sub("", printed).strip() == strip.sub("", paths["md"].read_text("utf-8")).strip()


@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
class TestInChromium:
    @pytest.fixture
    def address(self, tmp_path: Path) -> str:
        path = tmp_path / "report.html"
        path.write_text(html.page(built(*RUNS), RUNS, gallery=4), "utf-8")
        return path.as_uri()

    @pytest.fixture
    def complaints(self) -> list[str]:
        return []

    @pytest.fixture(params=["light", "dark"])
    def page(self, request: pytest.FixtureRequest, address: str, complaints: list[str]) -> "Iterator[BrowserPage]":
        api = pytest.importorskip("playwright.sync_api", reason="needs playwright")
        with api.sync_playwright() as playwright:
            options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = playwright.chromium.launch(executable_path=CHROMIUM, args=options, timeout=60_000)
            page = browser.new_page(color_scheme=request.param, viewport={"width": 1280, "height": 900})
            page.set_default_timeout(60_000)
            page.on("console", lambda message: complaints.append(message.text))
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.on("request", lambda asked: complaints.append(asked.url) if asked.url.startswith("http") else None)
            page.goto(address)
            yield page
            browser.close()

    def test_it_is_shown_whole_and_filters(self, page: "BrowserPage", complaints: list[str]) -> None:
        page.wait_for_selector("#count:not(:empty)")
        assert page.inner_text("#count") == "32 of 32 items"
        assert page.locator(".card:visible").count() == 0  # of three runs the galleries are closed
        page.select_option("#kind", "worst")
        page.select_option("#run", "high")
        assert page.inner_text("#count") == "4 of 32 items"
        assert page.locator("tbody tr[data-run]:visible").count() == 1
        assert page.locator(".card:visible").count() == 4
        page.fill("#text", "number 0 OF HIGH")
        assert page.inner_text("#count") == "1 of 32 items"
        assert page.locator(".gallery:visible").count() == 1
        page.fill("#text", "nowhere")
        assert page.locator(".gallery:visible").count() == 0
        assert complaints == []

    def test_it_fits_a_phone_and_can_be_read(self, page: "BrowserPage") -> None:
        """Text stands out from every decile's colour by 4.5 to 1 (WCAG 2.2, 1.4.3)."""
        page.set_viewport_size({"width": 390, "height": 844})
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        figure = page.locator("tbody tr[data-run] td").nth(1).bounding_box()
        assert figure is not None
        assert figure["x"] + figure["width"] < 390  # the first figure beside the name, without scrolling
        name = page.locator("tbody tr[data-run] th").first.bounding_box()
        assert name is not None
        assert name["height"] < 100
        for decile in range(10):
            ink, paper = (_luminance(page.evaluate(_COLOURS, [f"--d{decile}"])[name]) for name in ("ink", "paper"))
            assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, decile


_COLOURS = """([name]) => {
    const style = getComputedStyle(document.documentElement);
    return {ink: style.getPropertyValue("--ink"), paper: style.getPropertyValue(name)};
}"""


def _luminance(colour: str) -> float:
    """Relative luminance of "#rrggbb", by WCAG 2.2."""
    parts = [int(colour.strip()[start : start + 2], 16) / 255 for start in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
