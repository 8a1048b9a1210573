"""What a tenant may use."""

import msgspec


class Own(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A tenant's own limits, in place of the settings; None: as the settings say, 0: none at all.

    Rates are a minute, ``cost_per_day`` is in dollars.
    """

    rate_per_minute: int | None = None
    requests_per_minute: int | None = None
    tenant_requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    cost_per_day: float | None = None
    runs: int | None = None
    queued_runs: int | None = None
