"""The parent process, its workers and sockets, and the application that a worker serves.

- ``api_reference``: what the API page shows in addition to types: meanings of fields, and examples
- ``composition``: the composition root, one bundle of parts per subsystem
- ``application``: what ``serve`` and ``dev`` have their workers do
- ``asgi``: the application of one worker
- ``granian_internals``: everything that leans on private parts of Granian
- ``lifespan``: starts the parts of a worker in order, drains them, and closes them in reverse, also when a start
  fails half-way
- ``parent``: the parent process
- ``parent_log``: log lines of the parent process, formatted like those of ``app.infra.telemetry.logs``
- ``routes``: all controllers in reading order
- ``schema``: the SQLAlchemy metadata of all tables, which Alembic reads
- ``sockets``: listening sockets, opened by the parent and inherited by its workers
- ``worker``: A worker process
- ``worker_context``: what a worker gets from its parent, and the protocol between them
- ``worker_handle``: the parent's handle of a running worker
- ``worker_renewal``: when a worker is replaced
"""
