"""The HTTP side of authentication, rate limits and idempotency.

- ``guard``: the middleware that authenticates requests, the scopes of routes, throttling of failures
- ``custom_auth``: authentication by the operator's handlers
- ``rate_limits``: rate limits and their headers
- ``idempotency``: the header ``Idempotency-Key``, duplicates in flight
- ``open_streams``: rechecks of credentials while a stream is open
"""
