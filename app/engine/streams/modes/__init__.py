"""Stream modes with views of their own: ``messages``, ``steps`` (tasks, checkpoints, debug) and ``trace_events``.

- ``messages``: stream mode ``messages``
- ``steps``: stream modes ``tasks``, ``checkpoints`` and ``debug``
- ``trace_events``: stream mode ``events``
- ``view``: port of stream modes with a view of their own on a run's events
"""
