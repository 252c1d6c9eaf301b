"""Alembic runs this. The connection is the caller's (``app.jobs.database.migrate``), and so is the commit."""

from alembic import context

from app.jobs.table import Base

context.configure(connection=context.config.attributes["connection"], target_metadata=Base.metadata)
with context.begin_transaction():
    context.run_migrations()
