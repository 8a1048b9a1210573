"""Servers, as the journeys have them."""

from tests.journeys.conftest import served

__all__ = ["served"]
