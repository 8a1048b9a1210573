"""Threads, their states and their history.

- ``controller.py``: HTTP routes
- ``service.py``: use cases
- ``states.py``: state updates and imported histories
- ``views.py``: wire views of rows, containment and paths in values
- ``queries.py``: SQL
- ``structs.py``: wire shapes
"""
