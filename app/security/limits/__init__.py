"""Limits per key and tenant.

- ``limiter``, ``token_buckets``, ``redis_buckets``: rates
- ``budgets``, ``prices``: tokens and dollars; ``storage_quota``: stored bytes
"""
