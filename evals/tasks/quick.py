"""Records of the tasks without a model: their cases and figures as measures and items."""

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from pydantic import JsonValue

from evals import provenance
from evals.highlight import Case as HighlightCase
from evals.highlight import HighlightReport
from evals.merge import MergeCase, MergeReport
from evals.phrases import PhraseCase, PhraseReport
from evals.record import Batch, Item, Measure, Run, new_id, runs_folder, save
from evals.retrieval import Cases as RetrievalCases
from evals.retrieval import K, RetrievalReport
from evals.safety import Case as SafetyCase
from evals.safety import SafetyReport
from evals.score import ScoreReport
from evals.tasks.photo_task import Finished
from trendrag.settings import Settings


def keep(
    task: str,
    finished: Finished,
    settings: Settings,
    *,
    began: datetime,
    cases: Path | None,
    label: str = "",
    told: Mapping[str, JsonValue] | None = None,
    figures: Mapping[str, float] | None = None,
    seed: int | None = None,
    model: str | None = None,
) -> str:
    """Keeps the record in the data directory; ``cases`` is a file or a folder of files.

    Returns:
        The run's id.
    """
    batches = dict.fromkeys(item.batch for item in finished.items if item.batch)
    run = Run(
        id=new_id(task, began),
        task=task,
        label=label,
        created_at=began,
        finished_at=datetime.now(UTC),
        cases=cases.name if cases else "",
        cases_sha256=files_sha256(cases) if cases else None,
        seed=seed,
        model=model,
        settings=told or {},
        versions=provenance.versions(),
        commit=provenance.commit(),
        hardware=provenance.hardware(),
        measures=finished.measures,
        figures=figures or {},
        batches=tuple(Batch(id=id_, created_at=began) for id_ in batches),
        notes=finished.notes,
    )
    save(run, finished.items, runs_folder(settings.data_dir))
    return run.id


def files_sha256(path: Path) -> str:
    files = sorted(path.iterdir()) if path.is_dir() else [path]
    found = hashlib.sha256()
    for file in files:
        if file.is_file():
            found.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return found.hexdigest()


def retrieval(cases: RetrievalCases, report: RetrievalReport) -> Finished:
    queries = {query.id: query for query in cases.queries}
    phrases = {trend.id: trend.phrase for trend in cases.trends}
    measures = (
        Measure(
            name=f"nDCG@{K}", about="gain of the trends shown, of the best that is possible; queries that any fits"
        ),
        Measure(name=f"recall@{K}", about="share of the fitting trends that are shown"),
        Measure(name="silence", about="share of empty answers, of queries that nothing fits"),
        Measure(name="right silence", how="ratio", about="of the empty answers, the share to which nothing fits"),
        Measure(name="forbidden", how="ratio", better="lower", about="share of hits that a query forbids"),
    )
    items = []
    for result in report.results:
        query = queries[result.id]
        due, empty, shown = not query.relevant, not result.shown, len(result.shown)
        scores = {
            f"nDCG@{K}": result.ndcg,
            f"recall@{K}": result.recall,
            "silence": float(empty) if due else None,
        }
        counts: dict[str, tuple[float, ...]] = {"right silence": (float(empty and due), float(empty))}
        counts["forbidden"] = (float(len(result.forbidden)), float(shown))
        items.append(
            Item(
                id=result.id,
                scores=scores,
                counts=counts,
                input=query.description,
                output="\n".join(phrases[id_] for id_ in result.shown),
                references=tuple(phrases[id_] for id_ in query.relevant),
            )
        )
    return Finished(measures, tuple(items))


def highlight(cases: Sequence[HighlightCase], report: HighlightReport) -> Finished:
    by_id = {str(case.id): case for case in cases}
    measures = (
        Measure(name="passed", about="share of captions whose spans are all right, in whatever chunks they come"),
        Measure(name="precision", how="ratio", about="share of the spans marked that are right"),
        Measure(name="recall", how="ratio", about="share of the spans to mark that are marked"),
        Measure(name="F1", how="f1"),
    )
    items = []
    for result in report.results:
        case = by_id[str(result.id)]
        found, wanted = float(len(result.found)), float(len(case.expected))
        right = found - len(result.unexpected)
        counts = {"precision": (right, found), "recall": (right, wanted), "F1": (right, found, wanted)}
        items.append(
            Item(id=str(result.id), scores={"passed": float(result.passed)}, counts=counts, output=case.caption)
        )
    return Finished(measures, tuple(items))


def safety(cases: Sequence[SafetyCase], report: SafetyReport) -> Finished:
    missed = {str(fault.id) for fault in report.missed}
    wrong = {str(fault.id): fault for fault in report.wrongly_withheld}
    measures = (
        Measure(name="recall of unsafe", about="share of the unsafe topics that are withheld"),
        Measure(name="safe withheld", better="lower", about="share of the safe topics that are withheld"),
    )
    items = []
    for case in cases:
        id_ = str(case.id)
        withheld = id_ not in missed if case.unsafe else id_ in wrong
        scores = {
            "recall of unsafe": float(withheld) if case.unsafe else None,
            "safe withheld": None if case.unsafe else float(withheld),
        }
        said = "\n".join([case.phrase, *case.headlines])
        items.append(Item(id=id_, scores=scores, input=said, output="withheld" if withheld else "offered"))
    return Finished(measures, tuple(items), (report.note,) if report.note else ())


def merge(cases: Sequence[MergeCase], report: MergeReport) -> Finished:
    by_id = {str(case.id): case for case in cases}
    items = []
    for result in report.results:
        case = by_id[str(result.id)]
        said = result.reason is not None
        both, taken, wanted = float(said and result.same), float(said), float(result.same)
        items.append(
            Item(
                id=str(result.id),
                counts={"precision": (both, taken), "recall": (both, wanted), "F1": (both, taken, wanted)},
                input=f"{' / '.join(case.a.names)}\n{' / '.join(case.b.names)}",
                output=f"the same by {result.reason}" if said else "not the same",
                references=("the same" if result.same else "not the same",),
                batch=result.split,
            )
        )
    return Finished(_OF_DECISIONS, tuple(items))


def phrases(cases: Sequence[PhraseCase], report: PhraseReport) -> Finished:
    by_id = {str(case.id): case for case in cases}
    measures = (
        Measure(name="precision", how="ratio", about="share of the phrases given that would do"),
        Measure(name="silence", how="ratio", about="of the headlines that have no phrase, the share that gave none"),
    )
    items = []
    for result in report.results:
        case = by_id[str(result.id)]
        given, due = result.phrase is not None, not case.phrases
        items.append(
            Item(
                id=str(result.id),
                counts={
                    "precision": (float(given and result.passed), float(given)),
                    "silence": (float(due and not given), float(due)),
                },
                input=case.headline,
                output=result.phrase or "none",
                references=case.phrases or ("none",),
                batch=result.split,
            )
        )
    return Finished(measures, tuple(items))


def score_figures(report: ScoreReport) -> dict[str, float]:
    """The simulated world has no cases: its figures are of the whole."""
    figures: dict[str, float] = {"bursts": float(report.bursts)}
    for each in report.methods:
        named = {
            "found within 6 h": each.soon,
            "found within 24 h": each.day,
            "false alarms at half": each.false_at_half,
        }
        figures |= {f"{each.method}: {name}": value for name, value in named.items()}
    return figures


_OF_DECISIONS = (
    Measure(name="precision", how="ratio", about="share of the pairs called the same that are"),
    Measure(name="recall", how="ratio", about="share of the same pairs that are called so"),
    Measure(name="F1", how="f1"),
)
