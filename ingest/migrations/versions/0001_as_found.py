"""Observations, how each source is doing, and what asking it has taught.

Before there were versions these tables were made on opening, so that each of them may be there already.
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_COUNT = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_table(
        "observation",
        sa.Column("id", _COUNT, primary_key=True),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("source_type", sa.String(32), nullable=False),
        sa.Column("family", sa.String(255), nullable=False),
        sa.Column("name", sa.String, nullable=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("form", sa.String, nullable=False),
        sa.Column("key", sa.String(24), nullable=False),
        sa.Column("bucket", sa.String(32), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("observed_at", sa.BigInteger, nullable=False),
        sa.Column("published_at", sa.BigInteger),
        sa.Column("url", sa.String),
        sa.Column("volume", sa.BigInteger),
        sa.Column("usual", sa.Float),
        sa.Column("region", sa.String(2)),
        sa.Column("language", sa.String(35), nullable=False),
        sa.Column("categories", sa.JSON, nullable=False),
        sa.Column("evidence", sa.JSON, nullable=False),
        sa.UniqueConstraint("source", "key", "bucket", name="observation_once"),
        if_not_exists=True,
    )
    op.create_index("observation_at", "observation", ["at"], if_not_exists=True)
    op.create_table(
        "source_status",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("last_success", sa.BigInteger),
        sa.Column("last_error_at", sa.BigInteger),
        sa.Column("last_error", sa.String),
        sa.Column("items", sa.Integer, nullable=False),
        sa.Column("new", sa.Integer, nullable=False),
        if_not_exists=True,
    )
    op.create_table(
        "fetch_state",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("fingerprint", sa.String(64), nullable=False),
        sa.Column("url", sa.String),
        sa.Column("etag", sa.String),
        sa.Column("last_modified", sa.String),
        sa.Column("checksum", sa.String(64)),
        sa.Column("body", sa.LargeBinary),
        sa.Column("last_attempt", sa.BigInteger),
        sa.Column("last_success", sa.BigInteger),
        sa.Column("last_changed", sa.BigInteger),
        sa.Column("errors", _COUNT, nullable=False),
        sa.Column("reason", sa.String),
        sa.Column("next_due", sa.BigInteger),
        sa.Column("told_to_wait", sa.Boolean, nullable=False),
        sa.Column("moved_to", sa.String),
        sa.Column("moved_seen", _COUNT, nullable=False),
        sa.Column("muted", sa.String),
        if_not_exists=True,
    )
