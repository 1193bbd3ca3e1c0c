"""The book: what has been made of the observations so far, so that a refresh costs what is new."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_NUMBER = sa.BigInteger().with_variant(sa.Integer, "sqlite")


def upgrade() -> None:
    op.create_index("observation_form", "observation", ["form"])
    op.create_table(
        "book",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("made_by", sa.String, nullable=False),
        sa.Column("upto", sa.BigInteger, nullable=False),
        sa.Column("as_of", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "book_item",
        sa.Column("item", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("source", sa.String(64), nullable=False),
        sa.Column("key", sa.String(24), nullable=False),
        sa.Column("at", sa.BigInteger, nullable=False),
        sa.Column("family", sa.String(255), nullable=False),
        sa.Column("named", sa.String),
        sa.Column("loose", sa.Boolean, nullable=False),
        sa.Column("left_out", sa.String),
        sa.UniqueConstraint("source", "key", name="book_item_once"),
    )
    op.create_index("book_item_at", "book_item", ["at"])
    op.create_index("book_item_named", "book_item", ["named"])
    op.create_table(
        "book_start",
        sa.Column("start", sa.LargeBinary, primary_key=True),
        sa.Column("item", _NUMBER, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_index("book_start_item", "book_start", ["item"])
    op.create_table(
        "book_span",
        sa.Column("form", sa.String, primary_key=True),
        sa.Column("item", _NUMBER, primary_key=True, autoincrement=False),
        sqlite_with_rowid=False,
    )
    op.create_index("book_span_item", "book_span", ["item"])
    op.create_table(
        "book_member",
        sa.Column("form", sa.String, primary_key=True),
        sa.Column("item", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("role", sa.Integer, nullable=False),
        sa.Column("name", sa.String),
        sqlite_with_rowid=False,
    )
    op.create_index("book_member_item", "book_member", ["item"])
    op.create_table(
        "book_name",
        sa.Column("form", sa.String, primary_key=True),
        sa.Column("names", sa.JSON, nullable=False),
        sa.Column("said", sa.JSON, nullable=False),
        sa.Column("year", sa.Integer, nullable=False),
    )
    op.create_table(
        "book_key",
        sa.Column("key", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("form", sa.String, primary_key=True),
        sqlite_with_rowid=False,
    )
    op.create_index("book_key_form", "book_key", ["form"])
    op.create_table(
        "book_pair",
        sa.Column("one", sa.String, primary_key=True),
        sa.Column("other", sa.String, primary_key=True),
        sa.Column("rank", sa.Integer, nullable=False),
    )
    op.create_index("book_pair_other", "book_pair", ["other"])
    op.create_table(
        "book_topic",
        sa.Column("id", sa.String(16), primary_key=True),
        sa.Column("key", sa.BigInteger, nullable=False),
        sa.Column("content", sa.BigInteger, nullable=False),
        sa.Column("members", sa.Integer, nullable=False),
        sa.Column("last_seen", sa.BigInteger, nullable=False),
        sa.Column("last", sa.BigInteger, nullable=False),
        sa.Column("potential", sa.Float, nullable=False),
        sa.Column("height", sa.Float, nullable=False),
        sa.Column("peak", sa.Float, nullable=False),
        sa.Column("change", sa.Float, nullable=False),
        sa.Column("withheld", sa.String),
        sa.Column("sources", sa.String, nullable=False),
        sa.Column("until", sa.BigInteger),
    )
    op.create_index("book_topic_last", "book_topic", ["last"])
    op.create_index("book_topic_until", "book_topic", ["until"])
    op.create_table(
        "book_form",
        sa.Column("form", sa.String, primary_key=True),
        sa.Column("topic", sa.String(16), nullable=False),
    )
    op.create_index("book_form_topic", "book_form", ["topic"])
    op.create_table(
        "book_trend",
        sa.Column("key", _NUMBER, primary_key=True, autoincrement=False),
        sa.Column("trend", sa.String, nullable=False),
    )
    op.create_table(
        "book_source",
        sa.Column("source", sa.String(64), primary_key=True),
        sa.Column("hours", sa.LargeBinary, nullable=False),
        sa.Column("volumes", sa.LargeBinary, nullable=False),
    )
