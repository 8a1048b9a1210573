"""Assistants: configured, versioned agents.

- ``controller.py``: HTTP routes
- ``service.py``: use cases
- ``queries.py``: SQL
- ``tables.py``: tables
- ``structs.py``: wire shapes
"""
