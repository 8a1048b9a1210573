"""The connection to Redis, and its rotated address.

- ``connection``: the address and password of Redis, rotated at runtime once Redis accepts the new ones
"""
