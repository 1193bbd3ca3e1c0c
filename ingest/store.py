"""Every observation ever made, append-only, and how each source is doing.

An observation is stored once per (source, key, bucket): fetching the same list twice changes nothing, and a row is
never changed afterwards, so that nothing is ever re-dated. A failed or empty fetch only touches the source's status.
What observations mean is left to merge and score.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from sqlalchemy import Engine, create_engine, func, select
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.orm import Session
from sqlalchemy.pool import StaticPool

from ingest.database import TRENDS, engine_of, file_engine
from ingest.observation import Observation, joined_form
from ingest.schema import Base, ObservationRow, SourceRow
from ingest.score import Point
from trendrag.settings import Settings
from trendrag.types import Evidence


@dataclass(frozen=True, slots=True)
class SourceStatus:
    """``size`` is in bytes, decompressed; None where no answer with a body has come since it is recorded."""

    source: str
    last_success: datetime | None
    last_error_at: datetime | None
    last_error: str | None
    items: int
    new: int
    size: int | None = None


class ObservationStore:
    """Synchronous; call it in a thread. One instance may be used from several threads, one after the other.

    Raises:
        ConfigurationError: the database can't be opened, or not be used as it is.
    """

    def __init__(self, engine: Engine) -> None:
        """For an engine whose database is up to date."""
        self._engine = engine

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Where the settings say: ``ingest.database_url``, by default an SQLite file in the data directory."""
        return cls._up_to_date(engine_of(settings))

    @classmethod
    def at(cls, file: Path) -> Self:
        """In an SQLite file, made where there is none."""
        return cls._up_to_date(file_engine(file))

    @classmethod
    def _up_to_date(cls, engine: Engine) -> Self:
        with TRENDS.mapped_errors():
            TRENDS.bring_up_to_date(engine)
        return cls(engine)

    @classmethod
    def in_memory(cls) -> Self:
        """Gone when it is closed. For samples, which must never mix with what was really seen."""
        engine = create_engine("sqlite://", connect_args={"check_same_thread": False}, poolclass=StaticPool)
        Base.metadata.create_all(engine)
        return cls(engine)

    @property
    def engine(self) -> Engine:
        """For what else is kept in the same database (``states``). ``close`` ends it for all."""
        return self._engine

    def close(self) -> None:
        self._engine.dispose()

    def add(self, observations: Sequence[Observation]) -> int:
        """Stores what is new and says how much that was."""
        if not observations:
            return 0
        dialect = postgresql if self._engine.dialect.name == "postgresql" else sqlite
        insert = dialect.insert(ObservationRow).on_conflict_do_nothing().returning(ObservationRow.id)
        with TRENDS.mapped_errors(), self._engine.begin() as connection:
            return len(connection.execute(insert, [_row(each) for each in observations]).all())

    def succeeded(self, source: str, at: datetime, *, items: int | None, new: int, size: int | None = None) -> None:
        """``items`` is None where the answer was not read because it was the same as before, ``size`` (bytes) where it
        had no body: what was known of both then stays."""
        with TRENDS.mapped_errors(), Session(self._engine) as session, session.begin():
            row = session.get(SourceRow, source) or SourceRow(source=source, items=0)
            row.last_success, row.new, row.last_error = at, new, None
            row.items = row.items if items is None else items
            row.size = row.size if size is None else size
            session.add(row)

    def failed(self, source: str, at: datetime, error: str) -> None:
        with TRENDS.mapped_errors(), Session(self._engine) as session, session.begin():
            row = session.get(SourceRow, source) or SourceRow(source=source, items=0, new=0)
            row.last_error_at, row.last_error = at, error[:500]
            session.add(row)

    def statuses(self) -> dict[str, SourceStatus]:
        with TRENDS.mapped_errors(), Session(self._engine) as session:
            return {
                row.source: SourceStatus(
                    row.source, row.last_success, row.last_error_at, row.last_error, row.items, row.new, row.size
                )
                for row in session.scalars(select(SourceRow))
            }

    def latest(self, since: datetime) -> list[Observation]:
        """Each item's last observation, of those that speak of a time at or after ``since``."""
        newest = (
            select(func.max(ObservationRow.id))
            .where(ObservationRow.at >= since)
            .group_by(ObservationRow.source, ObservationRow.key)
        )
        with TRENDS.mapped_errors(), Session(self._engine) as session:
            rows = session.scalars(select(ObservationRow).where(ObservationRow.id.in_(newest)))
            return [observation_of(row) for row in rows]

    def points(self, since: datetime) -> Iterator[Point]:
        """How strong each item was, each time it was seen since then; oldest first."""
        row = ObservationRow
        wanted = select(row.source, row.family, row.key, row.form, row.at, row.volume, row.usual)
        with TRENDS.mapped_errors(), Session(self._engine) as session:
            for found in session.execute(wanted.where(row.at >= since).order_by(row.at, row.id)):
                yield Point(*found)


def _row(seen: Observation) -> dict[str, Any]:
    return {
        "source": seen.source,
        "source_type": seen.source_type,
        "family": seen.family,
        "name": seen.name,
        "kind": seen.kind,
        "title": seen.title,
        "form": joined_form(seen.title),
        "key": seen.key,
        "bucket": seen.bucket,
        "at": seen.at,
        "observed_at": seen.observed_at,
        "published_at": seen.published_at,
        "url": seen.url,
        "volume": seen.volume,
        "usual": seen.usual,
        "region": seen.region,
        "language": seen.language,
        "categories": list(seen.categories),
        "evidence": [each.model_dump(mode="json") for each in seen.evidence],
    }


def observation_of(row: ObservationRow) -> Observation:
    return Observation(
        source=row.source,
        source_type=row.source_type,
        family=row.family,
        name=row.name,
        kind=row.kind,
        title=row.title,
        key=row.key,
        bucket=row.bucket,
        at=row.at,
        observed_at=row.observed_at,
        published_at=row.published_at,
        url=row.url,
        volume=row.volume,
        usual=row.usual,
        region=row.region,
        language=row.language,
        categories=tuple(row.categories),
        evidence=tuple(Evidence.model_validate(each) for each in row.evidence),
    )
