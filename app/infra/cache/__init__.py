"""Caches: bytes by key with a TTL, in memory or in Redis.

- ``port``: the interface; ``memory_cache``, ``redis_cache``: its implementations
- ``namespaces``: values of one kind per tenant; ``caches``: the namespaces of a process
"""
