"""Indexing of items.

* ``fields``: field paths and their texts
* ``versions``: index versions and their vector spaces
* ``indexing``: words and vectors of items and queries, group commits of puts
* ``maintenance``: backfill of vectors, deletion of expired items
* ``sql``: statements of versions and backfill
"""
