"""The measures of captions: what holds without the data of published figures."""

import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from evals.commands import evals
from evals.measures.captions import BLEU, CIDER, METEOR, ROUGE_L, score
from evals.record import Item
from evals.selfcheck import Row, run
from evals.statistics import figure
from trendrag.errors import ConfigurationError, RequestError

pytest.importorskip("pycocoevalcap", reason="needs the extra evals")
needs_java = pytest.mark.skipif(shutil.which("java") is None, reason="needs Java")

REFERENCES = {
    "1": ["a man rides a brown horse on the beach", "someone is riding a horse by the sea"],
    "2": ["two cats sleep on a red sofa", "cats are asleep on the couch"],
    "3": ["a plate of pasta with tomato sauce", "spaghetti and tomatoes on a white plate"],
}


@pytest.mark.parametrize("java", [False, pytest.param(True, marks=needs_java)])
def test_a_reference_scores_best_and_nonsense_nothing(java: bool) -> None:
    right = score({key: texts[0] for key, texts in REFERENCES.items()}, REFERENCES, java=java)
    wrong = score(dict.fromkeys(REFERENCES, "zebra"), REFERENCES, java=java)
    for name, figure_of_wrong in wrong.corpus.items():
        assert right.corpus[name] > 5 * figure_of_wrong
    assert right.corpus["BLEU-4"] == pytest.approx(1)
    assert (METEOR in right.measures) == java
    assert bool(right.notes) != java  # without Java the notes say what is missing


def test_our_counts_give_the_bleu_of_the_package() -> None:
    outputs = {
        "1": "a man on a horse on the beach",
        "2": "cats sleep on a red sofa",
        "3": "a plate of pasta with sauce",
    }
    found = score(outputs, REFERENCES, java=False)
    items = [Item(id=key, scores=found.scores[key], counts=found.counts[key]) for key in outputs]
    for measure in (*BLEU, ROUGE_L, CIDER):
        mean = figure(measure, items)
        assert mean
        assert mean.value == pytest.approx(found.corpus[measure.name], abs=1e-6)


ODD = ("", " \n ", "a\nb ||| c\u2028d\x0b\x1b[0m", "☕ 🐈", "…", "(\x00)", "lone \ud800 half")


@pytest.mark.parametrize("java", [False, pytest.param(True, marks=needs_java)])
def test_no_output_of_a_model_moves_another_items_score(java: bool) -> None:
    references = REFERENCES | dict.fromkeys(ODD, REFERENCES["1"])
    plain = score({key: texts[0] for key, texts in references.items()}, references, java=java)
    found = score({key: key if key in ODD else texts[0] for key, texts in references.items()}, references, java=java)
    for key in REFERENCES:
        assert found.scores[key] == plain.scores[key]
    for key in ODD:
        assert set(found.scores[key]) == set(plain.scores[key])
        assert found.scores[key]["CIDEr"] < plain.scores[key]["CIDEr"]


def test_what_can_not_be_scored_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="no reference"):
        score({"1": "a cat"}, {"1": ["", "."]}, java=False)
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(ConfigurationError, match="Java"):
        score({"1": "a cat"}, {"1": ["a cat"]}, java=True)


def test_a_figure_passes_that_rounds_to_the_published_one() -> None:
    row = Row(data="", measure="", published=".3444", found=0.34444)
    assert row.passed
    assert not row.model_copy(update={"found": 0.3446}).passed


def test_the_selfcheck_says_what_it_lacks(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"none of the reference data.*refs.json"):
        run(tmp_path)
    result = CliRunner().invoke(evals, ["selfcheck"], env={"TRENDRAG_EVALS_REFERENCE": None})
    assert result.exit_code == 2
    assert "--data" in result.output
    (tmp_path / "clipscore_example").mkdir()
    for name in ("refs", "good_captions", "bad_captions"):
        (tmp_path / "clipscore_example" / f"{name}.json").write_text("{", "utf-8")
    with pytest.raises(RequestError, match="not the data"):
        run(tmp_path)


@needs_java
def test_the_selfcheck_fails_where_a_figure_differs(tmp_path: Path) -> None:
    folder = tmp_path / "clipscore_example"
    folder.mkdir()
    (folder / "refs.json").write_text('{"1": ["a cat sits", "the cat is there"], "2": ["two dogs"]}', "utf-8")
    for name in ("good", "bad"):
        (folder / f"{name}_captions.json").write_text('{"1": "a cat", "2": "dogs"}', "utf-8")
    result = CliRunner().invoke(evals, ["selfcheck", "--data", str(tmp_path)])
    assert result.exit_code == 1
    assert "DIFFERS" in result.output
    assert "Not checked: flickr8k" in result.output
