"""Cancels: ``canceller`` and its statements in ``sql``."""
