"""Health of a vendor in this process: circuit breakers, retry budgets, and the latest observation.

Each pair of tenant and provider key has its own breaker and retry budget, so failures that one tenant provokes do not
affect others. The vendor has one more breaker for outages, opened only by consecutive failures of several tenants.
"""

import time
from collections import deque
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import msgspec
import structlog

from app.base.clock import now
from app.base.errors import ModelCredentials, ModelError, ModelRateLimited, ModelRejected, ModelUnavailable
from app.base.ttl_cache import TTLCache

log = structlog.get_logger(__name__)

Clock = Callable[[], float]

MAX_CIRCUITS = 1000
"""Limit of breakers per vendor; the least recently used one is evicted first."""


class BreakerRules(msgspec.Struct, frozen=True):
    """When a breaker opens: after ``consecutive`` failures, or if ``ratio`` of the last ``window`` calls failed.

    It stays open for ``seconds``; then one probe call closes it or opens it again. ``sources``: number of different
    tenants that must have failed since the last success.
    """

    consecutive: int = 5
    window: int = 20
    ratio: float = 0.5
    seconds: float = 15.0
    sources: int = 1


OUTAGE = BreakerRules(consecutive=10, ratio=1.0, sources=3)
"""When a vendor is considered down: ten consecutive failures of three tenants or more."""


class Breaker:
    """A circuit breaker. Each call that ``allow`` lets through must end in ``succeeded``, ``failed`` or ``unknown``."""

    def __init__(self, rules: BreakerRules = BreakerRules(), clock: Clock = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        self._outcomes: deque[bool] = deque(maxlen=rules.window)
        self._consecutive_failures = 0
        self._sources: set[str] = set()
        self._opened_at: float | None = None
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether ordinary calls are refused now."""
        return self._opened_at is not None

    def allow(self) -> bool:
        """Whether a call may be sent: always while closed; as the single probe once the open time has expired."""
        if self._opened_at is None:
            return True
        if self._probing or self.wait() > 0:
            return False
        self._probing = True
        return True

    def wait(self) -> float:
        """Return the seconds until a probe is allowed; 0 if one is allowed now."""
        if self._opened_at is None:
            return 0.0
        return max(0.0, self._opened_at + self._rules.seconds - self._clock())

    def succeeded(self) -> None:
        """Record a successful call."""
        if self._opened_at is not None and not self._probing:
            return
        if self._opened_at is not None:
            self._opened_at = None
            self._outcomes.clear()
        self._probing = False
        self._consecutive_failures = 0
        self._sources.clear()
        self._outcomes.append(True)

    def failed(self, source: str = "") -> None:
        """Record a failure of the provider in a call of ``source``."""
        self._consecutive_failures += 1
        self._outcomes.append(False)
        rules = self._rules
        if len(self._sources) < rules.sources:
            self._sources.add(source)
        full = len(self._outcomes) == rules.window
        tripped = self._consecutive_failures >= rules.consecutive or (
            full and self._outcomes.count(False) >= rules.ratio * rules.window
        )
        tripped = tripped and len(self._sources) >= rules.sources
        if self._probing or (tripped and self._opened_at is None):
            self._opened_at = self._clock()
        self._probing = False

    def unknown(self) -> None:
        """Record a call without evidence about the provider: it was cancelled or rate-limited."""
        self._probing = False


class RetryBudget:
    """Token bucket for retries: each first try adds ``share`` of a token, and time adds a few for idle servers.

    Keeps retries near ``share`` of the traffic during an outage, however long it lasts.
    """

    def __init__(
        self, share: float = 0.2, max_tokens: float = 10.0, per_second: float = 0.1, clock: Clock = time.monotonic
    ) -> None:
        self._share = share
        self._max_tokens = max_tokens
        self._per_second = per_second
        self._clock = clock
        self._tokens = max_tokens
        self._refilled_at = clock()

    def first_try(self) -> None:
        """Count a call that is not a retry."""
        self._tokens = min(self._max_tokens, self._tokens + self._share)

    def take(self) -> bool:
        """Take a token for a retry; False if the budget is exhausted."""
        current_time = self._clock()
        self._tokens = min(self._max_tokens, self._tokens + (current_time - self._refilled_at) * self._per_second)
        self._refilled_at = current_time
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """Outcome of the last call of a vendor.

    ``status`` is ``healthy``, ``degraded`` or ``unknown`` (not called yet); ``latency_ms``: time to the first event of
    the last successful answer; ``error``: name of the error of a failure.
    """

    status: str = "unknown"
    latency_ms: float | None = None
    observed_at: datetime | None = None
    error: str | None = None


class FailureScope(NamedTuple):
    """Scope of a breaker: a tenant (its id) and a provider key (its opaque name, never the key)."""

    tenant: str = ""
    key: str = ""


class Circuit:
    """Breaker and retry budget of one scope. ``error`` names its last failure."""

    def __init__(self, rules: BreakerRules, clock: Clock) -> None:
        self.breaker = Breaker(rules, clock)
        self.budget = RetryBudget(clock=clock)
        self.error = ""


class Vendor:
    """Health of one vendor in this process, shared by all its models."""

    def __init__(self, name: str, clock: Clock = time.monotonic, rules: BreakerRules = BreakerRules()) -> None:
        self.name = name
        self.clock = clock
        self.outage = Breaker(OUTAGE, clock)
        self.observation = Observation()
        self.observed: float | None = None
        self._rules = rules
        self._circuits: TTLCache[FailureScope, Circuit] = TTLCache(MAX_CIRCUITS, lru=True)

    @property
    def open(self) -> bool:
        """Whether a breaker of the vendor is open, for all tenants or for one."""
        return self.outage.open or any(circuit.breaker.open for circuit in self._circuits.values())

    def circuit(self, scope: FailureScope) -> Circuit:
        """Return the breaker and the retry budget of ``scope``."""
        circuit = self._circuits.get(scope)
        if circuit is None:
            circuit = Circuit(self._rules, self.clock)
            self._circuits.put(scope, circuit)
        return circuit

    def reset(self) -> None:
        """Close all breakers."""
        self.outage = Breaker(OUTAGE, self.clock)
        self._circuits.clear()

    def begin(self, scope: FailureScope = FailureScope()) -> "Attempt":
        """Start an attempt. Raises ``ModelUnavailable`` while a breaker is open."""
        circuit = self.circuit(scope)
        if not circuit.breaker.allow():
            raise self._unavailable(circuit.breaker, circuit.error)
        if not self.outage.allow():
            circuit.breaker.unknown()
            raise self._unavailable(self.outage, self.observation.error or "failures")
        return Attempt(self, scope, circuit)

    def _unavailable(self, breaker: Breaker, error: str) -> ModelUnavailable:
        wait = max(1.0, breaker.wait())
        return ModelUnavailable(
            f"{self.name} is not asked for the next {wait:.0f} s, because it failed repeatedly ({error})",
            vendor=self.name,
            retry_after=wait,
        )

    def observe(self, status: str, latency: float | None = None, error: ModelError | None = None) -> None:
        """Record the outcome of a call; ``latency`` in seconds."""
        latency_ms = self.observation.latency_ms if latency is None else round(latency * 1000, 1)
        name = None if error is None else type(error).__name__
        self.observation = Observation(status=status, latency_ms=latency_ms, observed_at=now(), error=name)
        self.observed = self.clock()


class Attempt:
    """One call to a vendor. An attempt without an outcome must be ``abandoned``."""

    def __init__(self, vendor: Vendor, scope: FailureScope, circuit: Circuit) -> None:
        self._vendor = vendor
        self._scope = scope
        self._circuit = circuit
        self._breakers = (circuit.breaker, vendor.outage)
        self._started_at = vendor.clock()
        self._latency: float | None = None
        self._ended = False

    def first_event(self) -> None:
        """Record the latency of the first event."""
        self._latency = self._vendor.clock() - self._started_at

    def succeeded(self) -> None:
        """Record a complete answer."""
        self._ended = True
        for breaker in self._breakers:
            was_open = breaker.open
            breaker.succeeded()
            if was_open and not breaker.open:
                log.info("model_breaker_closed", vendor=self._vendor.name, tenant_id=self._tenant_of(breaker))
        self._vendor.observe("healthy", self._latency)

    def failed(self, error: ModelError) -> None:
        """Record a failure. A rejected request counts as success of the provider, a rejected key or rate as neither.

        Errors that a prompt can provoke count as a rejected request: the provider did answer.
        """
        self._ended = True
        if isinstance(error, ModelRejected) or error.provoked:
            for breaker in self._breakers:
                breaker.succeeded()
            self._vendor.observe("healthy")
            return
        self._vendor.observe("degraded", error=error)
        if isinstance(error, ModelRateLimited | ModelCredentials):
            for breaker in self._breakers:
                breaker.unknown()
            return
        name = self._circuit.error = type(error).__name__
        for breaker in self._breakers:
            was_open = breaker.open
            breaker.failed(self._scope.tenant)
            if breaker.open and not was_open:
                log.warning(
                    "model_breaker_opened", vendor=self._vendor.name, error=name, tenant_id=self._tenant_of(breaker)
                )

    def abandoned(self) -> None:
        """End the attempt without an outcome, if it has none yet."""
        if not self._ended:
            self._ended = True
            for breaker in self._breakers:
                breaker.unknown()

    def _tenant_of(self, breaker: Breaker) -> str:
        """The tenant that ``breaker`` is for; empty for the one of all."""
        return self._scope.tenant if breaker is self._circuit.breaker else ""
