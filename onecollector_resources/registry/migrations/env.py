"""Run by alembic: migrates over the connection that the registry hands in."""

from alembic import context

from onecollector_resources.registry.schema import metadata

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=metadata,
    transaction_per_migration=False,
    render_as_batch=True,
)
with context.begin_transaction():
    context.run_migrations()
