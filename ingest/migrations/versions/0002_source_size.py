"""How large each source's last answer was."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    op.add_column("source_status", sa.Column("size", sa.BigInteger))
