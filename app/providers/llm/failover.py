"""Failover chain of models: retries with backoff, fallback models, and circuit breakers."""

import asyncio
import random
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from typing import cast

import msgspec
import structlog

from app.base.errors import ModelCredentials, ModelError
from app.infra.telemetry.meters import Meters
from app.providers.llm.billing import payer
from app.providers.llm.port import Finished, Model, ModelEvent, ModelRequest
from app.providers.llm.vendor_health import Clock, FailureScope, RetryBudget, Vendor

log = structlog.get_logger(__name__)


class RetryRules(msgspec.Struct, frozen=True):
    """Retry policy of one model. Times are in seconds.

    Exponential backoff with full jitter: the delay is random between 0 and ``base`` doubled with each try, at most
    ``max_delay``. A provider's Retry-After is honoured up to ``retry_after``; beyond that the model is not retried. No
    try starts after ``max_wait``.
    """

    tries: int = 3
    base: float = 0.5
    max_delay: float = 8.0
    retry_after: float = 20.0
    max_wait: float = 90.0


class ModelLink(msgspec.Struct, frozen=True):
    """One model of a chain, and its vendor."""

    model: Model
    vendor: Vendor

    def scope(self, tenant: str) -> FailureScope:
        """Return the breaker scope of a call of ``tenant``; adapters of paid models add the provider key in use."""
        return FailureScope(tenant, getattr(self.model, "key_name", ""))


class FailoverModel:
    """The models of ``links`` as one model, named as the first.

    A call that fails before its first event is retried or passed to the next model, if the error is retryable or the
    key is rejected. A failure after the first event is raised unchanged. ``Finished`` names the model that answered.
    """

    def __init__(
        self,
        links: Sequence[ModelLink],
        rules: RetryRules = RetryRules(),
        *,
        clock: Clock = time.monotonic,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        draw: Callable[[], float] = random.random,
        meters: Meters | None = None,
    ) -> None:
        self.vendor = links[0].model.vendor
        self.name = links[0].model.name
        self._links = links
        self._rules = rules
        self._clock = clock
        self._sleep = sleep
        self._draw = draw
        self._meters = meters

    async def stream(self, request: ModelRequest) -> AsyncIterator[ModelEvent]:
        """Call the models in turn (``app.providers.llm.port.Model``)."""
        current_payer = payer.get()
        tenant = request.tenant or ("" if current_payer is None else current_payer.tenant)
        plan = RetryPlan(
            self._links, self._rules, tenant, clock=self._clock, draw=self._draw, on_fallback=self._count_fallback
        )
        while True:
            link = plan.link
            started = False
            try:
                attempt = link.vendor.begin(link.scope(tenant))
            except ModelError as refusal:
                plan.skip(refusal)
                continue
            plan.count_first_try()
            # The port guarantees an aclose, which the type AsyncIterator does not declare.
            events = cast("AsyncGenerator[ModelEvent, None]", link.model.stream(request))
            try:
                async for event in events:
                    if not started:
                        started = True
                        attempt.first_event()
                    if isinstance(event, Finished):
                        event = plan.described(event)  # noqa: PLW2901
                    yield event
                attempt.succeeded()
                self._count_attempt(link)
                return
            except ModelError as error:
                attempt.failed(error)
                self._count_attempt(link, type(error).__name__)
                if started:
                    raise
                pause = plan.delay_after(error)
            finally:
                attempt.abandoned()
                await events.aclose()
            if pause:
                await self._sleep(pause)

    def _count_attempt(self, link: ModelLink, failure: str = "") -> None:
        if self._meters is not None:
            self._meters.model_attempts.add(1, link.model.vendor, link.model.name, failure)

    def _count_fallback(self, model: Model) -> None:
        if self._meters is not None:
            self._meters.model_fallbacks.add(1, model.vendor, model.name)


class RetryPlan:
    """Retry and fallback state of one request. ``index``: the model to call now, 0 for the primary.

    ``on_fallback`` is called with each model that is given up for the next.
    """

    def __init__(
        self,
        links: Sequence[ModelLink],
        rules: RetryRules,
        tenant: str,
        *,
        clock: Clock,
        draw: Callable[[], float],
        on_fallback: Callable[[Model], None],
    ) -> None:
        self._on_fallback = on_fallback
        self._tenant = tenant
        self._links = links
        self._rules = rules
        self._clock = clock
        self._draw = draw
        self._failures: list[ModelError] = []
        self._failed_calls = 0
        self.index = 0
        self._start_link()

    @property
    def link(self) -> ModelLink:
        """The model to call now."""
        return self._links[self.index]

    def described(self, end: Finished) -> Finished:
        """Return the end of an answer with what it took to get it."""
        if not self.index and not self._failed_calls:
            return end
        return msgspec.structs.replace(end, instead=self.index > 0, retries=self._failed_calls)

    def count_first_try(self) -> None:
        """Add a first try to the retry budget; retries do not count."""
        if self._tried == 1:
            self._budget.first_try()

    @property
    def _budget(self) -> RetryBudget:
        return self.link.vendor.circuit(self.link.scope(self._tenant)).budget

    def delay_after(self, error: ModelError) -> float:
        """Return the seconds to wait before calling ``link``. Raises if no model is left to try."""
        if not error.retryable and not isinstance(error, ModelCredentials):
            raise error
        self._failed_calls += 1
        pause = self._delay(error)
        if pause is None:
            self.skip(error)
            return 0.0
        self._tried += 1
        model = self.link.model
        log.info("model_retry", vendor=model.vendor, model=model.name, error=type(error).__name__, pause=pause)
        return pause

    def skip(self, error: ModelError) -> None:
        """Switch to the next model. Raises if there is none."""
        failed = self.link.model
        self._failures.append(error)
        if self.index + 1 == len(self._links):
            raise self._combined_error() from None
        self.index += 1
        self._on_fallback(failed)
        self._start_link()
        log.warning(
            "model_fallback",
            vendor=failed.vendor,
            model=failed.name,
            error=type(error).__name__,
            next_vendor=self.link.model.vendor,
            next_model=self.link.model.name,
        )

    def _start_link(self) -> None:
        self._tried = 1
        self._started_at = self._clock()

    def _delay(self, error: ModelError) -> float | None:
        """Return the delay before a retry of the same model, or None if it must not be retried."""
        rules = self._rules
        pause: float = self._draw() * min(rules.max_delay, rules.base * 2 ** (self._tried - 1))
        if error.retry_after is not None:
            if error.retry_after > rules.retry_after:
                return None
            pause = error.retry_after + pause
        late = self._clock() + pause - self._started_at > rules.max_wait
        if not error.retryable or self._tried >= rules.tries or late or not self._budget.take():
            return None
        return pause

    def _combined_error(self) -> ModelError:
        """Return the primary model's error, extended by those of the fallbacks."""
        first, *others = self._failures
        if not others:
            return first
        names = [f"{link.model.vendor}:{link.model.name}" for link in self._links]
        details = "; ".join(f"fallback {name}: {error}" for name, error in zip(names[1:], others, strict=True))
        return type(first)(f"{first}; {details}", vendor=first.vendor, retry_after=first.retry_after)
