"""The pause that a feed names itself."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    op.add_column("fetch_state", sa.Column("ttl_minutes", sa.Integer))
