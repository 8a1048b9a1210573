"""Limits per key and tenant.

- ``limiter``, ``token_buckets``, ``redis_buckets``: rates
- ``budgets``, ``prices``: tokens and dollars; ``storage_quota``: stored bytes
- ``queries``: SQL of limits
- ``structs``: limits, budgets and usage of tenants
- ``tables``: spending on models, one row per tenant and day, whose it was, and stored bytes, one row per tenant
"""
