"""Idempotency keys: a retried request gets the first response."""
