"""How near captions are to those that people wrote, as COCO's evaluation has it: BLEU-1 to 4, ROUGE-L, CIDEr, METEOR.

The formulas are those of the package pycocoevalcap (extra ``evals``). Its tokenizer, Stanford's for the Penn Treebank,
and METEOR run on Java: without one, words are split by a simple rule of ours, METEOR is left out, and a note says so,
since such figures can't be compared with published ones.

CIDEr weighs words by how few of the images' references hold them: it depends on the other images of the run, and is 0
for one image alone. It punishes length beyond that of the references, so words are counted beside it.
"""

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from evals.record import Measure
from evals.statistics import WORDS
from trendrag.errors import ConfigurationError, TrendragError

_WAIT_S = 600
# Brackets stay, as "-lrb-": published figures were made so.
_PUNCTUATION = {"''", "'", "``", "`", ".", "?", "!", ",", ":", "-", "--", "...", ";"}
_WORD = re.compile(r"\w+(?:['’]\w+)*")

BLEU = tuple(
    Measure(
        name=f"BLEU-{order}", how=f"bleu-{order}", counts="bleu", about=f"precision of up to {order} words in a row"
    )
    for order in (1, 2, 3, 4)
)
ROUGE_L = Measure(name="ROUGE-L", about="the longest common subsequence")
CIDER = Measure(name="CIDEr", about="words in a row, weighed by how telling they are; from 0 to 10")
METEOR = Measure(name="METEOR", about="words matched by stem and synonym too")


class CaptionScores(NamedTuple):
    """``scores`` and ``counts`` by case, for an `Item`'s fields of that name; ``notes`` for the run's.

    ``corpus`` has what pycocoevalcap gives for all cases together. METEOR's differs from the mean over cases.
    """

    measures: tuple[Measure, ...]
    scores: Mapping[str, Mapping[str, float]]
    counts: Mapping[str, Mapping[str, tuple[float, ...]]]
    corpus: Mapping[str, float]
    notes: tuple[str, ...]


def score(
    outputs: Mapping[str, str], references: Mapping[str, Sequence[str]], java: bool | None = None
) -> CaptionScores:
    """Scores each output, by case, against the references of its case. An empty output scores 0.

    Args:
        java: whether to use it; by default where there is one.

    Raises:
        ConfigurationError: the extra is missing, or ``java`` is wanted and there is none.
        ValueError: an output has no reference.
    """
    if not outputs:
        raise ValueError("there is no caption to score")
    has_java = shutil.which("java") is not None
    if java and not has_java:
        raise ConfigurationError("Java is not installed, which METEOR and the Penn Treebank tokenizer need")
    java = has_java if java is None else java
    words = tokenize([*outputs.values(), *(each for key in outputs for each in references[key])], java)
    said = {key: [text] for key, text in zip(outputs, words, strict=False)}
    rest = iter(words[len(outputs) :])
    wanted = {key: [text for _ in references[key] if (text := next(rest))] for key in outputs}
    if bare := [key for key, texts in wanted.items() if not texts]:
        raise ValueError(f"{bare[0]} has no reference with a word in it")
    return _score(said, wanted, java)


def tokenize(texts: Sequence[str], java: bool) -> list[str]:
    """Each text as its words in lower case with one space between, without punctuation."""
    lines = [" ".join("".join(char if char.isprintable() else " " for char in text).split()) for text in texts]
    if not java:
        return [" ".join(_WORD.findall(line.lower())) for line in lines]
    full = [line for line in lines if line]
    split = iter(_penn_treebank(full) if full else [])
    return [
        " ".join(word for word in next(split).split() if word not in _PUNCTUATION) if line else "" for line in lines
    ]


def bleu_counts(words: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, ...]:
    """Matches of 1 to 4 words in a row (each as often as the reference that has it most), how many there are of each,
    the number of words, and that of the reference closest in length (of two, the shorter)."""
    matches, totals = [], []
    for order in (1, 2, 3, 4):
        most: Counter[tuple[str, ...]] = Counter()
        for reference in references:
            most |= _grams(reference, order)
        found = _grams(words, order)
        matches.append(float(sum((found & most).values())))
        totals.append(float(sum(found.values())))
    closest = min((abs(len(each) - len(words)), len(each)) for each in references)[1]
    return (*matches, *totals, float(len(words)), float(closest))


def _grams(words: Sequence[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(tuple(words[start : start + order]) for start in range(len(words) - order + 1))


def _score(said: Mapping[str, list[str]], wanted: Mapping[str, list[str]], java: bool) -> CaptionScores:
    package()
    from pycocoevalcap.bleu.bleu import Bleu  # noqa: PLC0415  (of the extra, and slow)
    from pycocoevalcap.cider.cider import Cider  # noqa: PLC0415
    from pycocoevalcap.rouge.rouge import Rouge  # noqa: PLC0415

    corpus: dict[str, float] = {}
    scores: dict[str, dict[str, float]] = {key: {} for key in said}

    def keep(name: str, whole: float, each: Sequence[float], keys: Sequence[str]) -> None:
        corpus[name] = float(whole)
        for key, one in zip(keys, each, strict=True):
            scores[key][name] = float(one)

    keys = list(said)
    wholes, lists = Bleu(4).compute_score(wanted, said, verbose=0)
    for order in range(4):
        keep(BLEU[order].name, wholes[order], lists[order], keys)
    for measure, scorer in ((ROUGE_L, Rouge()), (CIDER, Cider())):
        whole, each = scorer.compute_score(wanted, said)
        keep(measure.name, whole, each, keys)
    measures = [CIDER, WORDS, *BLEU, ROUGE_L]
    notes = []
    if java:
        full = [key for key in keys if said[key][0]]
        for key in keys:
            scores[key][METEOR.name] = 0.0
        if full:
            keep(METEOR.name, *_meteor({key: wanted[key] for key in full}, {key: said[key] for key in full}), full)
        measures.append(METEOR)
    else:
        notes.append(
            "Java is not installed: words were split by a simple rule and METEOR is left out. These figures can't be "
            "compared with published ones; install a Java runtime (Debian: default-jre-headless) for those."
        )
    if len(keys) == 1:
        notes.append("CIDEr is 0 for one image alone: it weighs words by how few images have them.")
    counts = {key: {"bleu": bleu_counts(said[key][0].split(), [each.split() for each in wanted[key]])} for key in keys}
    return CaptionScores(tuple(measures), scores, counts, corpus, tuple(notes))


def package() -> Path:
    """The folder of pycocoevalcap.

    Raises:
        ConfigurationError: it is not installed.
    """
    try:
        import pycocoevalcap  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            "Caption measures need the extra `evals`: pip install 'trendrag[evals]' (pycocoevalcap)"
        ) from error
    return Path(next(iter(pycocoevalcap.__path__)))


def _penn_treebank(lines: Sequence[str]) -> list[str]:
    jar = package() / "tokenizer" / "stanford-corenlp-3.4.1.jar"
    command = ["-Dfile.encoding=UTF-8", "-cp", str(jar), "edu.stanford.nlp.process.PTBTokenizer"]
    try:
        done = subprocess.run(  # noqa: S603
            [shutil.which("java") or "java", *command, "-preserveLines", "-lowerCase"],
            input="\n".join(lines).encode(),
            capture_output=True,
            timeout=_WAIT_S,
            check=True,
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise TrendragError(f"The Penn Treebank tokenizer did not run on this machine's Java: {error}") from error
    split = done.stdout.decode("utf-8", "replace").split("\n")[: len(lines)]
    if len(split) < len(lines):
        raise TrendragError(f"The Penn Treebank tokenizer gave {len(split)} lines for {len(lines)}")
    return split


def _meteor(wanted: Mapping[str, list[str]], said: Mapping[str, list[str]]) -> tuple[float, list[float]]:
    from pycocoevalcap.meteor.meteor import Meteor  # noqa: PLC0415

    try:
        whole, each = Meteor().compute_score(wanted, said)
    except (OSError, ValueError) as error:
        raise TrendragError(f"METEOR did not run on this machine's Java: {error}") from error
    return float(whole), [float(one) for one in each]
