"""Limits, budgets and usage of tenants."""

from datetime import date, datetime
from typing import NamedTuple
from uuid import UUID

import msgspec


class TenantLimits(msgspec.Struct, frozen=True, omit_defaults=True):
    """A tenant's own limits, which override the settings; None: as the settings say, 0: unlimited.

    Rates are per minute, ``cost_per_day`` is in dollars, ``bytes`` are stored bytes. Limits of a later version, whose
    processes run next to this one during a rolling update, are ignored.
    """

    rate_per_minute: int | None = None
    requests_per_minute: int | None = None
    tenant_requests_per_minute: int | None = None
    bytes_per_minute: int | None = None
    tokens_per_minute: int | None = None
    cost_per_day: float | None = None
    runs: int | None = None
    queued_runs: int | None = None
    crons: int | None = None
    bytes: int | None = None


class BudgetReservation(msgspec.Struct):
    """What a run may use before it reserves more: tokens, and dollars of a day (UTC)."""

    day: date
    tokens: int
    cost: float


class DaySpending(msgspec.Struct, frozen=True):
    """A tenant's spending on a day (UTC): dollars, dollars reserved by live runs, tokens."""

    day: date
    spent: float
    reserved: float
    tokens: int


class UsageKey(NamedTuple):
    """Whose usage it is: ``agent`` by its configured name, empty outside of runs; ``requested_by`` a key or user, empty
    if unknown; ``model`` as ``vendor:model``, empty for the counts of runs, ``*`` for models beyond those that fit.
    """

    tenant_id: UUID
    day: date
    agent: str
    requested_by: str
    model: str


class UsageSums(msgspec.Struct):
    """Runs that their worker ended, those of them that failed, tokens, and dollars."""

    runs: int = 0
    failed: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    spent: float = 0.0

    def add(self, other: "UsageSums") -> None:
        """Add ``other`` to it."""
        for name in self.__struct_fields__:
            setattr(self, name, getattr(self, name) + getattr(other, name))


class StorageUsage(msgspec.Struct, frozen=True):
    """A tenant's stored bytes, by kind and in total, as last measured at ``measured_at``."""

    bytes: int
    by_kind: dict[str, int]
    measured_at: datetime
