"""Which trends a run uses: those of a day, or those of a set of cases."""

import hashlib
from datetime import UTC, date, datetime, time
from pathlib import Path

from evals.retrieval import publish_cases, read_cases
from evals.tasks.code import code_sha256
from indexes.embedder import Embedder
from indexes.manifest import current_id, read_manifest, snapshot_ids
from trendrag.errors import NoSnapshot, RequestError
from trendrag.settings import Settings


def as_of(when: str, snapshots_dir: Path) -> Path:
    """The directory of the snapshot that was current at ``when``: a day (its end, in UTC), a moment (ISO 8601, in UTC
    where it has no zone), or "now".

    Raises:
        RequestError: ``when`` is none of these, or no snapshot of then is left; the message says which there are.
        NoSnapshot: nothing has been published.
    """
    ids = snapshot_ids(snapshots_dir)
    current = current_id(snapshots_dir)
    if not ids or current is None:
        raise NoSnapshot("There are no trends yet. Collect some: trendrag refresh")
    if when == "now":
        return snapshots_dir / current
    moment = _moment(when)
    made = [(manifest.created_at, id_) for id_ in ids if (manifest := read_manifest(snapshots_dir / id_))]
    before = [each for each in made if each[0] <= moment]
    if not before:
        there = f"the oldest that is left is of {min(made)[0]:%Y-%m-%d %H:%M} UTC" if made else "none can be read"
        raise RequestError(
            f"No snapshot of {when} or before: {there}. TRENDRAG_INGEST__KEEP_SNAPSHOTS says how many are kept, and "
            "`trendrag snapshot pull` fetches those of a shelf"
        )
    return snapshots_dir / max(before)[1]


def of_cases(folder: Path, keep_in: Path, settings: Settings, embedder: Embedder) -> Path:
    """The directory of a snapshot of the cases in ``folder`` (as ``evals.retrieval`` reads them), made once and kept in
    ``keep_in`` until the cases, the settings of ingest or our code change.

    Raises:
        RequestError: the cases can't be read.
    """
    cases = read_cases(folder)
    parts = (cases.model_dump_json(), settings.ingest.model_dump_json(), code_sha256())
    kept = keep_in / hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]
    if current_id(kept) is None:
        publish_cases(kept, cases, settings, embedder)
    return kept / (current_id(kept) or "")


def _moment(when: str) -> datetime:
    try:
        return datetime.combine(date.fromisoformat(when), time.max, UTC)
    except ValueError:
        pass
    try:
        moment = datetime.fromisoformat(when)
    except ValueError:
        raise RequestError(f"--as-of {when}: give a day (2026-11-20), a moment (2026-11-20T09:00) or now") from None
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
