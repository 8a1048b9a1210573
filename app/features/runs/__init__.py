"""Runs as clients see them; what executes them is in ``app.engine``.

- ``controller.py``: HTTP routes
- ``service.py``: use cases
- ``creation.py``: validation of requests for runs
- ``run_streams.py``: a run's stream and result: event log, then live feed
- ``thread_streams.py``: all runs of a thread as one stream
- ``queries.py``: SQL
"""
