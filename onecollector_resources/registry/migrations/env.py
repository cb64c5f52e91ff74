"""Run by alembic: migrates over the connection that the registry hands in."""

from alembic import context

from onecollector_resources.registry.schema import metadata

connection = context.config.attributes["connection"]
context.configure(
    connection=connection,
    # A server's database may be Dagster's, too, which keeps its own revision under alembic's usual name.
    version_table="alembic_version" if connection.dialect.name == "sqlite" else "onecollector_alembic_version",
    target_metadata=metadata,
    transaction_per_migration=False,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
