"""Bulk import and export of items.

* ``json_lines``: the format of a line
* ``importer``: batches of lines, errors, progress
* ``bulk_copy``: COPY into staging tables and merge; HNSW indexes dropped and rebuilt
* ``exporter``: items and vectors from one snapshot
* ``sql``: statements
"""
