"""The connection to Redis, and its rotated address."""
