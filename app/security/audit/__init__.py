"""The audit log: ``service`` buffers, writes and reads its entries.

- ``queries``: SQL of the audit log
- ``service``: audit log
- ``structs``: audit log entries as clients see them
- ``tables``: the audit log, append-only
"""
