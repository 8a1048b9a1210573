"""Streams of runs.

- ``feed``, ``feed_registry``: buffered frames and their subscribers
- ``frames``, ``modes``: render events as server-sent events
- ``frame_transport``: frames between processes, by ``redis_transport`` or ``postgres_transport``
- ``signals``: wake-ups by NOTIFY
- ``send_budget``: backpressure for large chunks
- ``sql``: statements
"""
