"""Runs as clients see them; what executes them is in ``app.engine``.

- ``controller``: HTTP routes
- ``service``: use cases
- ``creation``: validation of requests for runs
- ``run_streams``: a run's stream and result: event log, then live feed
- ``run_views``: what subscribers get: frames of stream modes, or events
- ``chain``: a run with the runs that continue it, as protocols with tasks show it
- ``event_log``: logged events, in pages
- ``thread_streams``: all runs of a thread as one stream
- ``queries``, ``sql``: SQL; that of chains
- ``structs``: wire shapes of the search over all threads, and of a run's changes
"""
