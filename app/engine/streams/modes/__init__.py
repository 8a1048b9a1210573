"""Stream modes with views of their own: ``messages``, ``steps`` (tasks, checkpoints, debug) and ``trace_events``."""
