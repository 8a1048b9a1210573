"""The composition root: settings in, one bundle of connected parts per subsystem out.

The only place that picks adapters.

- ``telemetry``: meters, traces, the metrics page, what pushes them
- ``persistence``: secrets, the database, the audit log, the caches
- ``auth``: API keys, tokens, custom handlers
- ``models``: models and the agents that call them
- ``limits``: rates, budgets, storage quota
- ``engine``: queue, journal, feeds, supervisor
- ``features``: what the API names
- ``services``: all of it together
- ``documents``: the parts of documents: first what agents use, then what clients use
- ``mcp``: the Model Context Protocol's server side
- ``health``: whether this worker works
"""
