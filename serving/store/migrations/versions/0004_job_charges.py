"""What a job was charged, so that a failure gives it back."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    op.add_column("job", sa.Column("charged", sa.Integer(), nullable=True))
    op.add_column("job", sa.Column("charged_key", sa.String(length=16), nullable=True))
    op.add_column("job", sa.Column("charged_day", sa.Date(), nullable=True))
