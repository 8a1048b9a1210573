"""Suites of other projects against this server: they come from package registries, and run in ``make suites``."""
