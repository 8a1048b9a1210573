"""Adapters to the outside: database, cache, HTTP, telemetry, settings, secrets.

- ``cache``: caches in this process and in Redis
- ``db``: postgreSQL: engines, pools, group commit, migrations, the embedded server
- ``egress``: calls to addresses that users name
- ``http``: middleware and primitives of HTTP, over Litestar
- ``redis``: connections to Redis
- ``secrets``: secrets and their rotation
- ``settings``: settings, read once from the environment
- ``telemetry``: metrics, traces and logs
- ``wires``: wire shapes that a protocol's server and client share
"""
