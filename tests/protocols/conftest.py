"""Servers, as the journeys have them."""

from tests.journeys.conftest import served, steered

__all__ = ["served", "steered"]
