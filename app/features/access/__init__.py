"""The HTTP side of authentication, rate limits and idempotency.

- ``guard.py``: the middleware that authenticates requests, the scopes of routes, throttling of failures
- ``custom_auth.py``: authentication by the operator's handlers
- ``rate_limits.py``: rate limits and their headers
- ``idempotency.py``: the header ``Idempotency-Key``, duplicates in flight
- ``open_streams.py``: rechecks of credentials while a stream is open
"""
