"""The headers of an answer that is kept for repeated requests."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    op.add_column("idempotent", sa.Column("headers", sa.JSON(), nullable=True))
