"""The domain: values without I/O.

- ``messages``: messages of conversations
- ``events``, ``event_id``: events of runs and their positions
- ``state``: values of a thread
- ``lifecycle``: statuses, reasons, transitions
- ``caller``: on whose behalf an agent works
"""
