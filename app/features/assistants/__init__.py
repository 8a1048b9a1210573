"""Assistants: configured, versioned agents.

- ``controller``: HTTP routes
- ``service``: use cases
- ``queries``: SQL
- ``tables``: tables
- ``structs``: wire shapes
"""
