"""Finished captions, and what their owners think of them."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.create_table(
        "caption",
        sa.Column("id", sa.String(length=32), nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.Column("parent", sa.String(length=32), nullable=True),
        sa.Column("image_sha256", sa.String(length=64), nullable=False),
        sa.Column("thumbnail", sa.LargeBinary(), nullable=True),
        sa.Column("request", sa.JSON(), nullable=False),
        sa.Column("answer", sa.JSON(), nullable=False),
        sa.Column("texts", sa.JSON(), nullable=False),
        sa.Column("searched", sa.String(), nullable=False),
        sa.PrimaryKeyConstraint("id"),
    )
    op.create_index("caption_created", "caption", ["created_at"], unique=False)
    op.create_index("caption_owner", "caption", ["owner", "created_at", "id"], unique=False)
    op.create_table(
        "favourite",
        sa.Column("caption", sa.String(length=32), nullable=False),
        sa.Column("candidate", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("created_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["caption"], ["caption.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("caption", "candidate"),
    )
    op.create_table(
        "feedback",
        sa.Column("caption", sa.String(length=32), nullable=False),
        sa.Column("candidate", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("owner", sa.String(length=80), nullable=False),
        sa.Column("verdict", sa.String(length=8), nullable=True),
        sa.Column("edited", sa.String(), nullable=True),
        sa.Column("updated_at", sa.BigInteger(), nullable=False),
        sa.ForeignKeyConstraint(["caption"], ["caption.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("caption", "candidate"),
    )
