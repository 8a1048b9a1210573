"""Idempotency keys: a retried request gets the first response.

- ``queries``: SQL of idempotency keys, and ``once``, which runs a request's work once per key and replays its first
  response
- ``structs``: idempotency keys and replayed responses
- ``tables``: responses by ``Idempotency-Key``, replayed when a request is retried
"""
