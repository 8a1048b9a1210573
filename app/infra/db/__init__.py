"""PostgreSQL: connections, transactions, migrations.

- ``engine``: the pools and their transactions; ``session``, ``pool``: what it hands out, and how fairly
- ``repeating``: do again what a lost connection has interrupted
- ``sqlalchemy_internals``: everything that leans on private parts of SQLAlchemy
- ``sql``: statements of this package; ``metadata``: the metadata of all tables
- ``columns``: column lists and parameters of statements, derived from structs
- ``group_commit``, ``batches``: batched writes of concurrent callers, and of background work
- ``migrations``, ``revisions``, ``schema_check``: the schema
- ``url``, ``connect_errors``: addresses, and why a connection failed
- ``statement_tracing``: spans of statements
- ``embedded``, ``folder_lock``: the PostgreSQL server of ``agent-service dev``
"""
