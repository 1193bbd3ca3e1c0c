"""The tables of the service database as they are now. How they came to be so is in ``migrations``: a change here needs
a revision there, and a test compares the two.

``owner`` says whose a row is: the ``owner`` of ``serving.http.callers.Caller``. Every reading is by owner.
"""

from datetime import datetime
from typing import Any

from sqlalchemy import JSON, Date, ForeignKey, Index, Integer, LargeBinary, String, UniqueConstraint
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from trendrag.database import UtcDateTime


class Base(DeclarativeBase):
    pass


class KeyRow(Base):
    """An API key. Of the key itself only ``hash`` is kept, the SHA-256 in hexadecimal: keys are random, 256 bits."""

    __tablename__ = "api_key"

    id: Mapped[str] = mapped_column(String(16), primary_key=True)
    name: Mapped[str] = mapped_column(String(100))
    hash: Mapped[str] = mapped_column(String(64), unique=True)
    scopes: Mapped[list[str]] = mapped_column(JSON)
    captions_per_day: Mapped[int | None]
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    last_used_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    revoked_at: Mapped[datetime | None] = mapped_column(UtcDateTime)


class KeyUseRow(Base):
    """Captions asked for with a key on a day (UTC)."""

    __tablename__ = "api_key_use"

    key: Mapped[str] = mapped_column(String(16), ForeignKey("api_key.id", ondelete="CASCADE"), primary_key=True)
    day: Mapped[Any] = mapped_column(Date, primary_key=True)
    captions: Mapped[int] = mapped_column(default=0)


class CaptionRow(Base):
    """A finished caption request: what was asked (without the image), and the answer as the API gives it.

    ``texts`` are those of its captions, so that a list of many need not read the answers; ``searched`` is what is
    looked through. ``image_sha256`` is of the picture as it was sent to the model. ``parent`` is what the asker said
    that this refines, an id that need not be there.
    """

    __tablename__ = "caption"
    __table_args__ = (Index("caption_owner", "owner", "created_at", "id"), Index("caption_created", "created_at"))

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    parent: Mapped[str | None] = mapped_column(String(32))
    image_sha256: Mapped[str] = mapped_column(String(64))
    thumbnail: Mapped[bytes | None] = mapped_column(LargeBinary)
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    answer: Mapped[dict[str, Any]] = mapped_column(JSON)
    texts: Mapped[list[str]] = mapped_column(JSON)
    searched: Mapped[str]


class FavouriteRow(Base):
    __tablename__ = "favourite"

    caption: Mapped[str] = mapped_column(String(32), ForeignKey("caption.id", ondelete="CASCADE"), primary_key=True)
    candidate: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(80))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)


class FeedbackRow(Base):
    """What the owner thinks of a candidate: the last word counts."""

    __tablename__ = "feedback"

    caption: Mapped[str] = mapped_column(String(32), ForeignKey("caption.id", ondelete="CASCADE"), primary_key=True)
    candidate: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    owner: Mapped[str] = mapped_column(String(80))
    verdict: Mapped[str | None] = mapped_column(String(8))
    edited: Mapped[str | None]
    updated_at: Mapped[datetime] = mapped_column(UtcDateTime)


class JobRow(Base):
    """A caption request to be worked off later. A queued one may be begun from ``ready_at`` on; a running one is taken
    over by another worker after ``leased_until``. The image goes as soon as the job is over. ``charged`` captions were
    counted against a quota for it, those of ``charged_key`` on ``charged_day``; None where none were."""

    __tablename__ = "job"
    __table_args__ = (
        UniqueConstraint("owner", "key", name="job_once"),
        Index("job_waiting", "state", "ready_at"),
        Index("job_owner", "owner", "id"),
    )

    id: Mapped[str] = mapped_column(String(32), primary_key=True)
    owner: Mapped[str] = mapped_column(String(80))
    key: Mapped[str | None] = mapped_column(String(200))
    fingerprint: Mapped[str] = mapped_column(String(64))
    state: Mapped[str] = mapped_column(String(12))
    request: Mapped[dict[str, Any]] = mapped_column(JSON)
    image: Mapped[bytes | None] = mapped_column(LargeBinary)
    answer: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    error_code: Mapped[str | None] = mapped_column(String(40))
    error: Mapped[str | None]
    attempts: Mapped[int] = mapped_column(default=0)
    worker: Mapped[str | None] = mapped_column(String(64))
    leased_until: Mapped[datetime | None] = mapped_column(UtcDateTime)
    cancel_asked: Mapped[bool] = mapped_column(default=False)
    ready_at: Mapped[datetime] = mapped_column(UtcDateTime)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    started_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    finished_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    charged: Mapped[int | None]
    charged_key: Mapped[str | None] = mapped_column(String(16))
    charged_day: Mapped[Any] = mapped_column(Date, nullable=True)


class IdempotentRow(Base):
    """The answer to a request that carried an Idempotency-Key, for its repetitions. ``status`` is None while the first
    one is under way, ``kind`` is the body's media type, ``headers`` the others that came with it, by name."""

    __tablename__ = "idempotent"
    __table_args__ = (Index("idempotent_created", "created_at"),)

    owner: Mapped[str] = mapped_column(String(80), primary_key=True)
    key: Mapped[str] = mapped_column(String(200), primary_key=True)
    fingerprint: Mapped[str] = mapped_column(String(64))
    status: Mapped[int | None]
    kind: Mapped[str | None] = mapped_column(String(100))
    headers: Mapped[dict[str, str] | None] = mapped_column(JSON)
    body: Mapped[bytes | None] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    leased_until: Mapped[datetime] = mapped_column(UtcDateTime)
