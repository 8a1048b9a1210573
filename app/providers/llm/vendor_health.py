"""What this process knows of one vendor: its circuit breakers, its budgets of retries, and how it did lately.

Each tenant and provider key has a breaker and a retry budget of its own: what one tenant provokes costs no other. The
vendor has one more breaker, for its outages, which only failures of several tenants in a row open.
"""

import time
from collections import OrderedDict, deque
from collections.abc import Callable
from datetime import datetime
from typing import NamedTuple

import msgspec
import structlog

from app.base.clock import now
from app.base.errors import ModelCredentials, ModelError, ModelRateLimited, ModelRejected, ModelUnavailable

log = structlog.get_logger(__name__)

Clock = Callable[[], float]


class BreakerRules(msgspec.Struct, frozen=True):
    """When a breaker opens: after ``consecutive`` failures, or when ``ratio`` of the last ``window`` calls failed.

    It stays open for ``seconds``; then one call may probe, and its outcome closes the breaker or opens it again.
    ``sources``: how many different tenants must have failed since the last success.
    """

    consecutive: int = 5
    window: int = 20
    ratio: float = 0.5
    seconds: float = 15.0
    sources: int = 1


OUTAGE = BreakerRules(consecutive=10, ratio=1.0, sources=3)
"""When a vendor is taken to be down for all: ten failures in a row, of three tenants or more."""

MAX_CIRCUITS = 1000
"""Breakers of tenants and keys that are kept for one vendor; the least recently used one goes first."""


class Breaker:
    """A circuit breaker. Each call that ``allow`` lets through must end in ``succeeded``, ``failed`` or ``unknown``."""

    def __init__(self, rules: BreakerRules = BreakerRules(), clock: Clock = time.monotonic) -> None:
        self._rules = rules
        self._clock = clock
        self._outcomes: deque[bool] = deque(maxlen=rules.window)
        self._row = 0
        self._sources: set[str] = set()
        self._opened: float | None = None
        self._probing = False

    @property
    def open(self) -> bool:
        """Whether ordinary calls are refused at the moment."""
        return self._opened is not None

    def allow(self) -> bool:
        """Whether a call may go out now: always while closed; as the one probe once the open time is over."""
        if self._opened is None:
            return True
        if self._probing or self.wait() > 0:
            return False
        self._probing = True
        return True

    def wait(self) -> float:
        """Seconds until a probe is due; 0 where none needs to be waited for."""
        if self._opened is None:
            return 0.0
        return max(0.0, self._opened + self._rules.seconds - self._clock())

    def succeeded(self) -> None:
        """The call got its answer."""
        if self._opened is not None and not self._probing:
            return
        if self._opened is not None:
            self._opened = None
            self._outcomes.clear()
        self._probing = False
        self._row = 0
        self._sources.clear()
        self._outcomes.append(True)

    def failed(self, source: str = "") -> None:
        """The call of ``source`` failed in a way that speaks against the provider."""
        self._row += 1
        self._outcomes.append(False)
        rules = self._rules
        if len(self._sources) < rules.sources:
            self._sources.add(source)
        full = len(self._outcomes) == rules.window
        tripped = self._row >= rules.consecutive or (full and self._outcomes.count(False) >= rules.ratio * rules.window)
        tripped = tripped and len(self._sources) >= rules.sources
        if self._probing or (tripped and self._opened is None):
            self._opened = self._clock()
        self._probing = False

    def unknown(self) -> None:
        """The call ended in a way that says nothing about the provider: it was cancelled, or limited by its rate."""
        self._probing = False


class RetryBudget:
    """Tokens that retries cost: each first try adds ``share`` of one, and time adds a few for quiet servers.

    So retries stay near ``share`` of the traffic when a provider is in trouble, however long that lasts.
    """

    def __init__(
        self, share: float = 0.2, max_tokens: float = 10.0, per_second: float = 0.1, clock: Clock = time.monotonic
    ) -> None:
        self._share = share
        self._max_tokens = max_tokens
        self._per_second = per_second
        self._clock = clock
        self._tokens = max_tokens
        self._seen = clock()

    def first_try(self) -> None:
        """Count a call that is no retry."""
        self._tokens = min(self._max_tokens, self._tokens + self._share)

    def take(self) -> bool:
        """Pay for a retry; False where the budget is spent."""
        moment = self._clock()
        self._tokens = min(self._max_tokens, self._tokens + (moment - self._seen) * self._per_second)
        self._seen = moment
        if self._tokens < 1:
            return False
        self._tokens -= 1
        return True


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """How a vendor did when it was last asked.

    ``status`` is ``healthy``, ``degraded`` or ``unknown`` (not asked yet); ``latency_ms`` the time to the first event
    of its last good answer; ``error`` the name of the error of a failure.
    """

    status: str = "unknown"
    latency_ms: float | None = None
    observed_at: datetime | None = None
    error: str | None = None


class FailureScope(NamedTuple):
    """Who sees a vendor's failures: a tenant (its id) by a provider key (a name of it, never the key)."""

    tenant: str = ""
    key: str = ""


class Circuit:
    """What one scope has seen of a vendor. ``error`` names its last failure."""

    def __init__(self, rules: BreakerRules, clock: Clock) -> None:
        self.breaker = Breaker(rules, clock)
        self.budget = RetryBudget(clock=clock)
        self.error = ""


class Vendor:
    """One vendor as this process sees it. Shared by all its models."""

    def __init__(self, name: str, clock: Clock = time.monotonic, rules: BreakerRules = BreakerRules()) -> None:
        self.name = name
        self.clock = clock
        self.outage = Breaker(OUTAGE, clock)
        self.observation = Observation()
        self.observed: float | None = None
        self._rules = rules
        self._circuits: OrderedDict[FailureScope, Circuit] = OrderedDict()

    @property
    def open(self) -> bool:
        """Whether the vendor is not asked at the moment, for all or for some tenant."""
        return self.outage.open or any(circuit.breaker.open for circuit in self._circuits.values())

    def circuit(self, scope: FailureScope) -> Circuit:
        """The breaker and the retry budget of ``scope``."""
        circuit = self._circuits.get(scope)
        if circuit is None:
            circuit = self._circuits[scope] = Circuit(self._rules, self.clock)
            if len(self._circuits) > MAX_CIRCUITS:
                self._circuits.popitem(last=False)
        else:
            self._circuits.move_to_end(scope)
        return circuit

    def reset(self) -> None:
        """Close every breaker."""
        self.outage = Breaker(OUTAGE, self.clock)
        self._circuits.clear()

    def begin(self, scope: FailureScope = FailureScope()) -> "Attempt":
        """Open an attempt. Raises ``ModelUnavailable`` while a breaker is open."""
        circuit = self.circuit(scope)
        if not circuit.breaker.allow():
            raise self._refusal(circuit.breaker, circuit.error)
        if not self.outage.allow():
            circuit.breaker.unknown()
            raise self._refusal(self.outage, self.observation.error or "failures")
        return Attempt(self, scope, circuit)

    def _refusal(self, breaker: Breaker, error: str) -> ModelUnavailable:
        wait = max(1.0, breaker.wait())
        return ModelUnavailable(
            f"{self.name} is not asked for the next {wait:.0f} s, because it failed repeatedly ({error})",
            vendor=self.name,
            retry_after=wait,
        )

    def observe(self, status: str, latency: float | None = None, error: ModelError | None = None) -> None:
        """Note how the vendor did just now; ``latency`` in seconds."""
        latency_ms = self.observation.latency_ms if latency is None else round(latency * 1000, 1)
        name = None if error is None else type(error).__name__
        self.observation = Observation(status=status, latency_ms=latency_ms, observed_at=now(), error=name)
        self.observed = self.clock()


class Attempt:
    """One call to a vendor, from its start to its outcome. An attempt without an outcome must be ``abandoned``."""

    def __init__(self, vendor: Vendor, scope: FailureScope, circuit: Circuit) -> None:
        self._vendor = vendor
        self._scope = scope
        self._circuit = circuit
        self._breakers = (circuit.breaker, vendor.outage)
        self._begun = vendor.clock()
        self._latency: float | None = None
        self._over = False

    def first_event(self) -> None:
        """The answer has begun."""
        self._latency = self._vendor.clock() - self._begun

    def succeeded(self) -> None:
        """The answer is complete."""
        self._over = True
        for breaker in self._breakers:
            was_open = breaker.open
            breaker.succeeded()
            if was_open and not breaker.open:
                log.info("model_breaker_closed", vendor=self._vendor.name, tenant_id=self._of(breaker))
        self._vendor.observe("healthy", self._latency)

    def failed(self, error: ModelError) -> None:
        """The call failed. A refused request speaks for the provider, a refused key or rate neither for nor against.

        What a prompt can provoke is as a refused request: the provider has answered.
        """
        self._over = True
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
                log.warning("model_breaker_opened", vendor=self._vendor.name, error=name, tenant_id=self._of(breaker))

    def abandoned(self) -> None:
        """Give the attempt up, if it has no outcome yet."""
        if not self._over:
            self._over = True
            for breaker in self._breakers:
                breaker.unknown()

    def _of(self, breaker: Breaker) -> str:
        """The tenant that ``breaker`` is for; empty for the one of all."""
        return self._scope.tenant if breaker is self._circuit.breaker else ""
