"""First tables: sources, their history, agents, configs, rollouts, gaps, audit, marks."""

from alembic import op

from onecollector_resources.registry.schema import metadata

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

TABLES = (
    "meta",
    "sources",
    "source_events",
    "agents",
    "configs",
    "rejected_configs",
    "rollouts",
    "gaps",
    "audit",
    "marks",
)
"""By name: what later versions brought is theirs to make."""


def upgrade() -> None:
    metadata.create_all(op.get_bind(), tables=[metadata.tables[name] for name in TABLES])
    op.execute("insert into meta (name, value) values ('revision', 0)")
    op.execute("insert into meta (name, value) values ('schema_version', 1)")


def downgrade() -> None:
    metadata.drop_all(op.get_bind(), tables=[metadata.tables[name] for name in TABLES])
