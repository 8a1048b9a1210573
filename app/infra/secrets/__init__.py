"""Secrets: ``secret`` hides a value, ``rotating_secret`` replaces it at runtime."""
