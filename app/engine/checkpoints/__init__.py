"""Checkpoints.

- ``codec``: storage format
- ``entry``, ``snapshot``: checkpoints to write and as read
- ``state_cache``: recent states
- ``sql``: statements
"""
