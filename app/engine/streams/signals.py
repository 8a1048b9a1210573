"""Wake-up signals between the processes of one database: coalesced PostgreSQL NOTIFY, carrying ids only.

A signal may be lost (a connection breaks) and never carries state: receivers query the database, and also poll it
without signals. Incoming signals prove that the connection works; if none arrive, the process sends itself an echo on
a channel of its own. NOTIFY takes a database-wide lock at commit, so signals are sent outside all other transactions,
and those that accumulate meanwhile are sent as the next batch.
https://www.postgresql.org/docs/current/sql-notify.html
"""

import asyncio
import contextlib
import time
from collections.abc import Callable, Iterable
from uuid import UUID

import asyncpg
import msgspec
import structlog

from app.base.ids import new_id
from app.base.tasks import Heartbeat, Tasks
from app.base.wakeup import WakeUp
from app.engine.streams.sql import ASYNC_COMMIT, NOTIFY
from app.infra.db.engine import Database

log = structlog.get_logger(__name__)

CHANNEL = "agent_service"
"""The channel of all processes; each picks the signals that concern it."""

ECHO_CHANNEL = "agent_service_echo_"
"""Prefix of the channel on which a process receives its own echoes, followed by its id."""

MAX_IDS = 150
"""Ids in one signal: a payload has at most 8,000 bytes."""

PAUSE_SECONDS = 0.5
"""Maximum backoff between connection attempts."""

ECHO_SECONDS = 2.0
"""How long nothing may arrive before an echo is sent."""

PROOF_SECONDS = 10.0
"""Interval of echoes while signals arrive, as those say little about the other direction."""

ANSWER_SECONDS = 5.0
"""Timeout of connecting, of a statement and of an echo; after it the connection is replaced."""

KINDS = ("watch", "again", "frames", "follow", "news", "erased")
"""Members that are lists of ids."""


class Signal(msgspec.Struct, frozen=True, omit_defaults=True):
    """A message to the other processes.

    ``queue``: runs are queued. ``cancel``: run id → the action recorded for it. ``watch``: runs whose frames a
    subscriber of the sender wants; ``again``: those to be sent again from the end of the event log, as some were lost;
    ``frames``: runs with new frames in the table for such subscribers. ``follow``: threads whose next run a subscriber
    waits for; ``news``: threads on which a run has started, or that were deleted. ``erased``: tenants whose data were
    all deleted.
    """

    sender: UUID
    queue: bool = False
    cancel: dict[UUID, str] = {}
    watch: list[UUID] = []
    again: list[UUID] = []
    frames: list[UUID] = []
    follow: list[UUID] = []
    news: list[UUID] = []
    erased: list[UUID] = []

    @property
    def is_empty(self) -> bool:
        """Whether this is the signal after a new connection: any signal may have been missed."""
        return not (self.queue or self.cancel or any(getattr(self, kind) for kind in KINDS))


_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(Signal).decode

Listener = Callable[[Signal], None]


class Signals:
    """Sends and receives the signals of this process over a connection of its own.

    Listeners are called for every signal of another process, and with an empty one after each reconnect, as signals may
    have been missed.
    """

    def __init__(self, database: Database) -> None:
        self._database = database
        self._sender = new_id()
        self._listeners: list[Listener] = []
        self._tasks = Tasks("signals")
        self._wake = WakeUp()
        self._sent = asyncio.Event()
        self._sent.set()
        self._echo_channel = f"{ECHO_CHANNEL}{self._sender.hex}"
        self._echoes = 0
        self._arrived_at = self._proved_at = -PROOF_SECONDS
        self._echo = asyncio.Event()
        self._clear()

    def _clear(self) -> None:
        self._queue = False
        self._cancel: dict[UUID, str] = {}
        self._sets: dict[str, set[UUID]] = {kind: set() for kind in KINDS}

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` for every signal; it must not block."""
        self._listeners.append(listener)

    def start(self) -> None:
        """Connect and start sending and receiving."""
        self._tasks.supervise(self._connected, name="connection", essential=True, back_off=PAUSE_SECONDS)

    async def aclose(self) -> None:
        """Send pending signals, for up to a second, and stop."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(1):
                await self._sent.wait()
        await self._tasks.aclose()

    def queue(self) -> None:
        """Notify workers that runs are waiting to be claimed."""
        self._queue = True
        self._waits()

    def cancel(self, run_ids: Iterable[UUID], action: str) -> None:
        """Notify other processes that ``action`` was recorded for these runs."""
        for run_id in run_ids:
            self._cancel[run_id] = action
            self._waits()

    def notify(self, kind: str, ids: Iterable[UUID]) -> None:
        """Notify other processes of ``ids``, in the signal's member ``kind``, one of ``KINDS``."""
        waiting = self._sets[kind]
        for one in ids:
            waiting.add(one)
            self._waits()

    def _waits(self) -> None:
        self._wake.set()
        self._sent.clear()

    async def _connected(self, beat: Heartbeat) -> None:
        async with contextlib.AsyncExitStack() as stack:
            async with asyncio.timeout(ANSWER_SECONDS):
                connection = await stack.enter_async_context(self._database.listening())
                await connection.execute(ASYNC_COMMIT)
                await connection.add_listener(CHANNEL, self._on_signal)
                await connection.add_listener(self._echo_channel, self._on_echo)
            self._arrived_at = self._proved_at = time.monotonic()
            self._call(Signal(self._sender))
            while True:
                await self._send(connection)
                if self._needs_proof():
                    await self._prove(connection)
                beat()

    async def _send(self, connection: asyncpg.Connection) -> None:
        """Send signals until the next echo is due; what fails to be sent waits for the next connection."""
        due = time.monotonic() + ECHO_SECONDS
        while (left := due - time.monotonic()) > 0:
            if not await self._wake.wait(left):
                return
            signals = self._take()
            try:
                async with asyncio.timeout(ANSWER_SECONDS):
                    await connection.execute(NOTIFY, CHANNEL, [_encode(signal).decode() for signal in signals])
            except BaseException:
                self._put_back(signals)
                self._wake.set()
                raise
            if not (self._queue or self._cancel or any(self._sets.values())):
                self._sent.set()

    def _needs_proof(self) -> bool:
        now = time.monotonic()
        return now - self._arrived_at >= ECHO_SECONDS or now - self._proved_at >= PROOF_SECONDS

    async def _prove(self, connection: asyncpg.Connection) -> None:
        """Send an echo and wait for it to come back. Raises ``TimeoutError`` if it does not."""
        self._echoes += 1
        self._echo.clear()
        async with asyncio.timeout(ANSWER_SECONDS):
            await connection.execute(NOTIFY, self._echo_channel, [str(self._echoes)])
            await self._echo.wait()
        self._arrived_at = self._proved_at = time.monotonic()

    def _on_echo(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        if payload == str(self._echoes):
            self._echo.set()

    def _put_back(self, signals: list[Signal]) -> None:
        for signal in signals:
            self._queue = self._queue or signal.queue
            self._cancel = {**signal.cancel, **self._cancel}
            for kind, waiting in self._sets.items():
                waiting.update(getattr(signal, kind))

    def _take(self) -> list[Signal]:
        """Return and clear what is pending, in signals that fit a payload."""
        queue, cancel, sets = self._queue, list(self._cancel.items()), {k: list(v) for k, v in self._sets.items()}
        self._clear()
        signals = [Signal(self._sender, queue=True)] if queue else []
        half = MAX_IDS // 2
        signals += [Signal(self._sender, cancel=dict(cancel[at : at + half])) for at in range(0, len(cancel), half)]
        for kind, ids in sets.items():
            parts = [ids[at : at + MAX_IDS] for at in range(0, len(ids), MAX_IDS)]
            signals += [Signal(self._sender, **{kind: part}) for part in parts]  # type: ignore[arg-type]
        return signals

    def _on_signal(self, _connection: object, _pid: int, _channel: str, payload: object) -> None:
        self._arrived_at = time.monotonic()
        try:
            signal = _decode(str(payload))
        except msgspec.MsgspecError:
            log.warning("signal_not_understood")  # from another program on this channel
            return
        if signal.sender != self._sender:
            self._call(signal)

    def _call(self, signal: Signal) -> None:
        for listener in self._listeners:
            listener(signal)
