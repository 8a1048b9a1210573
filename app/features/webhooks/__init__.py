"""Webhooks: calls to clients at the end of runs.

- ``controller.py``: HTTP routes of deliveries
- ``service.py``: use cases of deliveries
- ``dispatcher.py``: calls receivers, with retries and limits
- ``signing.py``: signatures
- ``queries.py``: SQL of the outbox
- ``tables.py``: the outbox
- ``structs.py``: wire shapes
"""
