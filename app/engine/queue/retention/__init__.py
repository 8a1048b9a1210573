"""Retention: ``sweeper`` and its statements in ``sql``."""
