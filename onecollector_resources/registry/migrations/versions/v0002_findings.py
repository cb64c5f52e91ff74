"""Findings, incidents, notices, and what of them is still to be sent. Nothing that was there is touched."""

from alembic import op

from onecollector_resources.registry.finding_tables import FINDING_TABLES
from onecollector_resources.registry.schema import metadata

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    metadata.create_all(op.get_bind(), tables=[metadata.tables[name] for name in FINDING_TABLES])
    op.execute("update meta set value = 2 where name = 'schema_version'")


def downgrade() -> None:
    metadata.drop_all(op.get_bind(), tables=[metadata.tables[name] for name in FINDING_TABLES])
    op.execute("update meta set value = 1 where name = 'schema_version'")
