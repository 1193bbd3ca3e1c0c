"""How long what was seen is kept, and the removal of what is older.

Nothing that a score or a snapshot may still look at is ever removed: ``kept_for`` refuses settings under which it would
be.
"""

from collections.abc import Collection
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, Connection, Engine, delete, exists, func, or_, select, update
from sqlalchemy.orm import InstrumentedAttribute

from ingest.database import TRENDS
from ingest.schema import BookRow, FetchRow, ObservationRow, SourceRow
from ingest.score import HISTORY
from trendrag.errors import ConfigurationError
from trendrag.settings import IngestSettings

UNDATED = timedelta(days=365)
"""Undated items are kept for so long at least. That one was seen before is all that tells it from a new one: where its
source still lists it when it has been removed, it comes back as if it were of that day."""

PAUSE = timedelta(days=1)
"""What is too old may stay for this long, so that removing it is worth the while."""

BATCH = 2_000
"""Rows per transaction: SQLite has one writer at a time, and the others then wait for about a tenth of a second."""

BATCHES = 100
"""At most so many at a time; more is left to the next time. A steady installation needs a few a day."""


def needed_for(settings: IngestSettings) -> timedelta:
    """How far back the score looks: the baseline of a trend that was last seen ``max_age_hours`` ago."""
    return timedelta(hours=settings.max_age_hours) + HISTORY


def kept_for(settings: IngestSettings) -> timedelta:
    """How long observations are kept.

    Raises:
        ConfigurationError: that is shorter than ``needed_for``.
    """
    kept, needed = timedelta(days=settings.keep_days), needed_for(settings)
    if kept < needed:
        raise ConfigurationError(
            f"TRENDRAG_INGEST__KEEP_DAYS is {settings.keep_days:g}, but scores look back {needed / timedelta(days=1):g}"
            " days: TRENDRAG_INGEST__MAX_AGE_HOURS, and the days before that which a trend is compared with. Set it to"
            " that or more"
        )
    return kept


def prune(engine: Engine, listed: Collection[str], *, now: datetime, kept: timedelta) -> int:
    """Removes observations older than ``kept``, and what is known of sources that are not ``listed`` and were not asked
    for as long. Cheap where there is nothing to do, which is so for a day after it was done.

    Returns:
        how many observations were removed.
    """
    removed = 0
    with TRENDS.mapped_errors():
        with engine.connect() as connection:
            if not connection.scalar(select(exists().where(_older_than(kept + PAUSE, now)))):
                return 0
        oldest = select(ObservationRow.id).where(_older_than(kept, now)).order_by(ObservationRow.at).limit(BATCH)
        for _ in range(BATCHES):
            with engine.begin() as connection:
                gone = connection.execute(delete(ObservationRow).where(ObservationRow.id.in_(oldest))).rowcount
                # SQLite gives the number of a last row that is gone to the next one, which the book must not miss.
                last = select(func.coalesce(func.max(ObservationRow.id), 0)).scalar_subquery()
                connection.execute(update(BookRow).where(BookRow.upto > last).values(upto=last))
            removed += gone
            if gone < BATCH:
                break
        with engine.begin() as connection:
            _forget_sources(connection, listed, now - kept)
    return removed


def _older_than(age: timedelta, now: datetime) -> ColumnElement[bool]:
    row = ObservationRow
    dated = or_(row.published_at.is_not(None), row.bucket != "once")
    return (row.at < now - age) & or_(dated, row.at < now - max(age, UNDATED))


def _forget_sources(connection: Connection, listed: Collection[str], before: datetime) -> None:
    def not_since(moment: InstrumentedAttribute[datetime | None]) -> ColumnElement[bool]:
        return or_(moment.is_(None), moment < before)

    left = SourceRow.source.not_in(listed) & not_since(SourceRow.last_success) & not_since(SourceRow.last_error_at)
    connection.execute(delete(SourceRow).where(left))
    connection.execute(delete(FetchRow).where(FetchRow.source.not_in(listed) & not_since(FetchRow.last_attempt)))
