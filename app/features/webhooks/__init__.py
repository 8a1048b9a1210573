"""Webhooks: calls to clients at the end of runs.

- ``controller``: HTTP routes of deliveries
- ``service``: use cases of deliveries
- ``dispatcher``: calls receivers, with retries and limits
- ``push``: push notifications about tasks
- ``signing``: signatures
- ``queries``: SQL of the outbox
- ``tables``: the outbox
- ``structs``: wire shapes
"""
