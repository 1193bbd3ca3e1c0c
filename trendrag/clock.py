"""Times as whole numbers since 1970, exact: for files, databases and arrays."""

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def microseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(microseconds=1)


def moment(microseconds: int) -> datetime:
    """``microseconds`` undone."""
    return EPOCH + timedelta(microseconds=microseconds)
