"""A chain of models that answers as one: retries, the next model where one fails, and the vendors' breakers."""

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
    """How often one model is tried, and how long between (seconds).

    The pause is drawn from 0 to ``base`` doubled with each try, at most ``longest``; a provider's Retry-After is
    honoured up to ``retry_after``, beyond that the model is not tried again. No try begins after ``max_wait``.
    """

    tries: int = 3
    base: float = 0.5
    longest: float = 8.0
    retry_after: float = 20.0
    max_wait: float = 90.0


class ModelLink(msgspec.Struct, frozen=True):
    """One model of a chain, and its vendor."""

    model: Model
    vendor: Vendor

    def scope(self, tenant: str) -> FailureScope:
        """Whose breaker a call of ``tenant`` counts for: adapters of paid models tell which provider key they use."""
        return FailureScope(tenant, getattr(self.model, "key_name", ""))


class FailoverModel:
    """The models of ``links`` as one model, which bears the first one's name.

    Only before its first event a failed call is tried again, or handed to the next model: when another try may work or
    the key is refused. A failure after the first event is raised as it is. ``Finished`` tells who answered.
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
        """Ask the models in turn (``app.providers.llm.port.Model``)."""
        paying = payer.get()
        tenant = request.tenant or ("" if paying is None else paying.tenant)
        plan = RetryPlan(self._links, self._rules, tenant, clock=self._clock, draw=self._draw, left=self._left)
        while True:
            link = plan.link
            begun = False
            try:
                attempt = link.vendor.begin(link.scope(tenant))
            except ModelError as refusal:
                plan.skip(refusal)
                continue
            plan.asking()
            # The port promises an aclose, which the type AsyncIterator does not have.
            events = cast("AsyncGenerator[ModelEvent, None]", link.model.stream(request))
            try:
                async for event in events:
                    if not begun:
                        begun = True
                        attempt.first_event()
                    if plan.place and isinstance(event, Finished):
                        event = msgspec.structs.replace(event, instead=True)  # noqa: PLW2901
                    yield event
                attempt.succeeded()
                self._tried(link)
                return
            except ModelError as error:
                attempt.failed(error)
                self._tried(link, type(error).__name__)
                if begun:
                    raise
                pause = plan.after(error)
            finally:
                attempt.abandoned()
                await events.aclose()
            if pause:
                await self._sleep(pause)

    def _tried(self, link: ModelLink, failure: str = "") -> None:
        if self._meters is not None:
            self._meters.model_attempts.add(1, link.model.vendor, link.model.name, failure)

    def _left(self, model: Model) -> None:
        if self._meters is not None:
            self._meters.model_fallbacks.add(1, model.vendor, model.name)


class RetryPlan:
    """What to try next for one request. ``place`` is that of the model to ask now: 0 for the one that was named.

    ``left`` hears of a model that gave way to the next.
    """

    def __init__(
        self,
        links: Sequence[ModelLink],
        rules: RetryRules,
        tenant: str,
        *,
        clock: Clock,
        draw: Callable[[], float],
        left: Callable[[Model], None],
    ) -> None:
        self._left = left
        self._tenant = tenant
        self._links = links
        self._rules = rules
        self._clock = clock
        self._draw = draw
        self._failures: list[ModelError] = []
        self.place = 0
        self._enter()

    @property
    def link(self) -> ModelLink:
        """The model to ask now."""
        return self._links[self.place]

    def asking(self) -> None:
        """Count the call that goes out now as traffic, unless it is a retry."""
        if self._tried == 1:
            self._budget.first_try()

    @property
    def _budget(self) -> RetryBudget:
        return self.link.vendor.circuit(self.link.scope(self._tenant)).budget

    def after(self, error: ModelError) -> float:
        """Seconds to wait before ``link`` is asked. Raises where nothing is left to try."""
        if not error.retryable and not isinstance(error, ModelCredentials):
            raise error
        pause = self._pause(error)
        if pause is None:
            self.skip(error)
            return 0.0
        self._tried += 1
        model = self.link.model
        log.info("model_retry", vendor=model.vendor, model=model.name, error=type(error).__name__, pause=pause)
        return pause

    def skip(self, error: ModelError) -> None:
        """Go on with the next model. Raises where there is none."""
        failed = self.link.model
        self._failures.append(error)
        if self.place + 1 == len(self._links):
            raise self._joined() from None
        self.place += 1
        self._left(failed)
        self._enter()
        log.warning(
            "model_fallback",
            vendor=failed.vendor,
            model=failed.name,
            error=type(error).__name__,
            next_vendor=self.link.model.vendor,
            next_model=self.link.model.name,
        )

    def _enter(self) -> None:
        self._tried = 1
        self._begun = self._clock()

    def _pause(self, error: ModelError) -> float | None:
        """How long to wait before the same model is tried again, or None where it should not be."""
        rules = self._rules
        pause: float = self._draw() * min(rules.longest, rules.base * 2 ** (self._tried - 1))
        if error.retry_after is not None:
            if error.retry_after > rules.retry_after:
                return None
            pause = error.retry_after + pause
        late = self._clock() + pause - self._begun > rules.max_wait
        if not error.retryable or self._tried >= rules.tries or late or not self._budget.take():
            return None
        return pause

    def _joined(self) -> ModelError:
        """The first model's error, which tells of the other models' too."""
        first, *others = self._failures
        if not others:
            return first
        names = [f"{link.model.vendor}:{link.model.name}" for link in self._links]
        details = "; ".join(f"fallback {name}: {error}" for name, error in zip(names[1:], others, strict=True))
        return type(first)(f"{first}; {details}", vendor=first.vendor, retry_after=first.retry_after)
