"""Are our caption measures those of the literature? Published figures, made again.

The data is not ours to pass on. A folder holds what the user brings of it:

    clipscore_example/  refs.json, good_captions.json, bad_captions.json    github.com/jmhessel/clipscore, example/
    nlg_eval_example/   hyp.txt, ref1.txt, ref2.txt                         github.com/Maluuba/nlg-eval, examples/
    flickr8k/           Flickr8k.token.txt (or .gz), ExpertAnnotations.txt  Hodosh, Young and Hockenmaier, JAIR 47, 2013

Published: by those projects' READMEs; for Flickr8k-Expert the correlation with three people's judgements, as Hessel and
others compute it ("CLIPScore", EMNLP 2021, table 1: τc), here to more digits.
"""

import gzip
import json
import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from pathlib import Path

from evals.measures.captions import CaptionScores, score
from evals.measures.kendall import tau
from trendrag.errors import RequestError
from trendrag.types import Frozen

_CAPTION = re.compile(r"(?P<image>[^#\t]+\.jpg)#(?P<number>\d+)\t(?P<text>.+)")


class Row(Frozen):
    """``published`` is as it was printed; a figure passes that rounds to it."""

    data: str
    measure: str
    published: str
    found: float

    @property
    def delta(self) -> float:
        return self.found - float(self.published)

    @property
    def passed(self) -> bool:
        exponent = Decimal(self.published).as_tuple().exponent
        assert isinstance(exponent, int)  # noqa: S101  (a figure of ours, not "NaN")
        return abs(self.delta) <= 0.5001 * 10.0**exponent


class SelfCheck(Frozen):
    """``absent`` are data sets that the folder lacks, with what should be there."""

    rows: tuple[Row, ...]
    absent: tuple[str, ...]

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)


def _expected(names: str, figures: str) -> dict[str, str]:
    return dict(zip(names.split(), figures.split(), strict=True))


_ALL = "BLEU-1 BLEU-2 BLEU-3 BLEU-4 METEOR ROUGE-L CIDEr"
_CLIPSCORE = {
    "good": _expected(_ALL, ".6667 .4899 .3469 .0000 .3444 .4280 .5637"),
    "bad": _expected(_ALL, ".4815 .2404 .1359 .0000 .1861 .3121 .2790"),
}
_NLG_EVAL = _expected(_ALL, ".550000 .428174 .284043 .201143 .295797 .522104 1.242192")
_FLICKR8K = {  # τb and τc, times 100
    "BLEU-1": ("32.175", "32.324"),
    "BLEU-4": ("30.599", "30.776"),
    "ROUGE-L": ("32.139", "32.314"),
    "CIDEr": ("43.602", "43.891"),
    "METEOR": ("41.538", "41.822"),
}


def run(folder: Path, on_progress: Callable[[str], None] = lambda _: None) -> SelfCheck:
    """Makes every figure again whose data ``folder`` holds; Flickr8k takes about half a minute.

    Raises:
        RequestError: it holds none of the data, or a file of it is not what it should be.
        ConfigurationError: the extra ``evals`` or Java is missing.
    """
    parts: Sequence[tuple[tuple[str, ...], Callable[[Path], list[Row]]]] = (
        (("refs.json", "good_captions.json", "bad_captions.json"), _clipscore),
        (("hyp.txt", "ref1.txt", "ref2.txt"), _nlg_eval),
        (("ExpertAnnotations.txt",), _flickr8k),
    )
    rows: list[Row] = []
    absent: list[str] = []
    for name, (files, check) in zip(("clipscore_example", "nlg_eval_example", "flickr8k"), parts, strict=True):
        missing = [file for file in files if not (folder / name / file).is_file()]
        if missing:
            absent.append(f"{name}: {folder / name} lacks {', '.join(missing)}")
            continue
        on_progress(name)
        try:
            rows += check(folder / name)
        except (OSError, UnicodeDecodeError, ValueError, KeyError) as error:
            raise RequestError(f"{folder / name} is not the data it should be: {error}") from error
    if not rows:
        raise RequestError(
            f"{folder} holds none of the reference data ({'; '.join(absent)}). docs/evals-report.md says what it is "
            "and where it comes from."
        )
    return SelfCheck(rows=tuple(rows), absent=tuple(absent))


def _clipscore(folder: Path) -> list[Row]:
    references = json.loads((folder / "refs.json").read_text("utf-8"))
    rows = []
    for name, expected in _CLIPSCORE.items():
        outputs = json.loads((folder / f"{name}_captions.json").read_text("utf-8"))
        rows += _rows(f"clipscore, {name}", expected, score(outputs, references, java=True))
    return rows


def _nlg_eval(folder: Path) -> list[Row]:
    texts = [(folder / f"{name}.txt").read_text("utf-8").splitlines() for name in ("hyp", "ref1", "ref2")]
    lines = {str(number): line for number, line in enumerate(zip(*texts, strict=True))}
    found = score({key: line[0] for key, line in lines.items()}, {key: line[1:] for key, line in lines.items()}, True)
    return _rows("nlg-eval", _NLG_EVAL, found)


def _rows(data: str, expected: Mapping[str, str], found: CaptionScores) -> list[Row]:
    return [
        Row(data=data, measure=name, published=published, found=found.corpus[name])
        for name, published in expected.items()
    ]


def _flickr8k(folder: Path) -> list[Row]:
    captions = _flickr8k_captions(folder)
    of_image: dict[str, list[str]] = {}
    for (image, _), text in captions.items():
        of_image.setdefault(image, []).append(text)
    outputs: dict[str, str] = {}
    references: dict[str, list[str]] = {}
    judged: list[tuple[str, int]] = []
    for line in (folder / "ExpertAnnotations.txt").read_text("utf-8").splitlines():
        image, candidate, *grades = line.split("\t")
        author, _, number = candidate.partition("#")
        text = captions[author, int(number)]
        if text in of_image[image]:
            continue  # a caption of the image itself
        pair = f"{image} {candidate}"
        outputs[pair], references[pair] = text, of_image[image]
        judged += [(pair, int(grade)) for grade in grades]
    scores = score(outputs, references, java=True).scores
    rows = []
    for measure, published in _FLICKR8K.items():
        found = tau([scores[pair][measure] for pair, _ in judged], [grade for _, grade in judged])
        for letter, printed, value in zip("bc", published, found, strict=True):
            name = f"{measure}, τ{letter} × 100"
            rows.append(
                Row(data=f"Flickr8k-Expert, n = {len(judged)}", measure=name, published=printed, found=100 * value)
            )
    return rows


def _flickr8k_captions(folder: Path) -> dict[tuple[str, int], str]:
    """Some copies have stray lines appended, without a number: those are left out."""
    plain, packed = folder / "Flickr8k.token.txt", folder / "Flickr8k.token.txt.gz"
    text = plain.read_text("utf-8") if plain.is_file() else gzip.decompress(packed.read_bytes()).decode("utf-8")
    found = (_CAPTION.fullmatch(line) for line in text.splitlines())
    return {(each["image"], int(each["number"])): each["text"] for each in found if each}
