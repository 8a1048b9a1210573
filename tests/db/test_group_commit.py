"""Group commit: concurrent writes are sent in groups."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import asyncpg
import pytest

from app.base.errors import Unavailable
from app.infra.db import group_commit
from app.infra.db.engine import DISK_FULL, Database
from app.infra.db.group_commit import MAX_GROUP_SIZE, GroupCommitter
from tests.outages import Operator

SLOTS = 2
TENANT = UUID(int=1)


class Numbers:
    """Texts → the numbers that they are, read by the database. It remembers the groups and who served them."""

    def __init__(self, database: Database) -> None:
        self.groups: list[list[str]] = []
        self.served_by: list[asyncpg.Connection] = []
        self.begun: asyncio.Queue[int] = asyncio.Queue()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.failure: BaseException | None = None
        self.database = database
        self._groups: GroupCommitter[str, int] = GroupCommitter(
            "numbers", database, self._read, key=lambda entry: entry, tenant=lambda _: TENANT, slots=SLOTS
        )
        self._groups.start()
        self.submit, self.aclose = self._groups.submit, self._groups.aclose

    async def _read(self, connection: asyncpg.Connection, entries: Sequence[str]) -> list[int]:
        self.groups.append(list(entries))
        self.served_by.append(connection)
        self.begun.put_nowait(len(entries))
        if self.failure is not None:
            raise self.failure
        await self.may_answer.wait()
        rows = await connection.fetch("select e::int as number from unnest($1::text[]) as e", list(entries))
        return [row["number"] for row in rows]

    async def all_lanes_busy(self) -> list[asyncio.Future[int]]:
        """Occupy every slot, each with one entry, until ``may_answer``."""
        self.may_answer.clear()
        occupying = []
        for number in range(SLOTS):
            occupying.append(self.submit(str(number)))
            assert await self.begun.get() == 1
        return occupying


@pytest.fixture
async def numbers(database_url: str) -> AsyncIterator[Numbers]:
    database = Database(database_url, requests=1, engine=SLOTS)
    numbers = Numbers(database)
    assert await numbers.submit("0") == 0
    async with asyncio.timeout(20):
        while len(numbers._groups._idle) < SLOTS:  # noqa: ASYNC110  a slot that is ready signals nothing
            await asyncio.sleep(0.005)
    numbers.groups.clear()
    numbers.served_by.clear()
    await numbers.begun.get()
    yield numbers
    await numbers.aclose()
    await database.aclose()


async def test_entries_that_arrive_while_every_slot_is_busy_are_sent_together(numbers: Numbers) -> None:
    occupying = await numbers.all_lanes_busy()
    others = [numbers.submit(str(number)) for number in range(10, 20)]
    numbers.may_answer.set()
    assert await asyncio.gather(*occupying, *others) == [0, 1, *range(10, 20)]
    assert numbers.groups == [["0"], ["1"], [str(number) for number in range(10, 20)]]


async def test_entries_beyond_one_group_are_sent_on_another_slot_at_once(numbers: Numbers) -> None:
    numbers.may_answer.clear()
    asked = [numbers.submit(str(number)) for number in range(MAX_GROUP_SIZE + 3)]
    assert [await numbers.begun.get() for _ in range(SLOTS)] == [MAX_GROUP_SIZE, 3]
    numbers.may_answer.set()
    assert await asyncio.gather(*asked) == list(range(MAX_GROUP_SIZE + 3))


async def test_sequential_writes_use_the_same_connection(numbers: Numbers) -> None:
    for number in range(6):
        assert await numbers.submit(str(number)) == number
    assert len(set(numbers.served_by)) == 1


async def test_entries_of_one_key_are_sent_in_order_and_block_no_others(numbers: Numbers) -> None:
    same = [numbers.submit("7") for _ in range(3)]
    other = numbers.submit("8")
    assert await asyncio.gather(*same, other) == [7, 7, 7, 8]
    assert numbers.groups == [["7", "8"], ["7"], ["7"]]


async def test_only_the_faulty_entry_of_a_group_fails(numbers: Numbers) -> None:
    one, bad, two = (numbers.submit(text) for text in ("1", "no number", "2"))
    assert (await one, await two) == (1, 2)
    with pytest.raises(asyncpg.DataError):
        await bad


async def test_an_entry_that_exceeds_a_limit_of_the_server_fails_alone_and_ends_no_slot(numbers: Numbers) -> None:
    before = slot_tasks()

    async def measure(connection: asyncpg.Connection, entries: Sequence[str]) -> list[int]:
        rows = await connection.fetch("select length(repeat('x', e::int)) as n from unnest($1::text[]) e", entries)
        return [row["n"] for row in rows]

    occupying = await numbers.all_lanes_busy()
    one, huge, two = (numbers.submit(text) for text in ("1", "2000000000", "2"))
    numbers._groups._execute = measure
    numbers.may_answer.set()
    await asyncio.gather(*occupying)
    assert (await one, await two) == (1, 2)
    with pytest.raises(asyncpg.ProgramLimitExceededError):
        await huge
    assert slot_tasks() == before


async def test_a_connection_that_broke_while_idle_fails_no_entry(numbers: Numbers) -> None:
    assert await numbers.submit("1") == 1
    broken = numbers.served_by[-1]
    broken.terminate()
    assert await numbers.submit("2") == 2
    assert numbers.served_by[-1] is not broken


def slot_tasks() -> list[asyncio.Task[object]]:
    return [task for task in asyncio.all_tasks() if task.get_name().startswith("numbers.slot")]


@pytest.mark.parametrize(
    "failure",
    [
        asyncpg.InternalClientError("got result for unknown protocol state 3"),
        asyncpg.InterfaceError("cannot perform operation: another operation is in progress"),
        asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation"),
        asyncpg.CrashShutdownError("terminating connection because of crash of another server process"),
        ConnectionResetError(),
        RuntimeError("whatever"),
        asyncio.CancelledError(),
    ],
    ids=lambda failure: type(failure).__name__,
)
async def test_whatever_ends_a_slot_its_entries_fail_and_the_next_one_is_sent(
    numbers: Numbers, failure: BaseException
) -> None:
    numbers.failure = failure
    with pytest.raises(Unavailable):
        await numbers.submit("1")
    numbers.failure = None
    assert await numbers.submit("2") == 2
    broken = numbers.served_by[0]
    assert broken.is_closed()
    assert numbers.served_by[-1] is not broken


async def test_a_slot_that_ends_when_it_was_woken_loses_no_wake_up(numbers: Numbers) -> None:
    """All slots are cancelled after one was woken and before it resumes."""
    for text in ("1", "2"):
        entry = numbers.submit(text)
        for slot in slot_tasks():
            slot.cancel()
        assert await asyncio.wait_for(entry, 10) == int(text)


async def test_without_a_database_an_entry_fails_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "UNREACHABLE_SECONDS", 0.1)
    monkeypatch.setattr(group_commit, "CHECK_SECONDS", 0.05)
    numbers = Numbers(Database("postgresql://unknown@/nothing?host=/nowhere", requests=1, engine=SLOTS))
    with pytest.raises(Unavailable, match="is unreachable"):
        await asyncio.wait_for(numbers.submit("1"), 10)
    await numbers.aclose()
    with pytest.raises(Unavailable, match="stopping"):
        await numbers.submit("2")


async def test_a_group_that_never_ends_times_out(numbers: Numbers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_commit, "SEND_SECONDS", 0.1)

    async def never(connection: asyncpg.Connection, _: Sequence[str]) -> list[int]:
        await connection.execute("select pg_sleep(3600)")
        return []

    with monkeypatch.context() as patch:
        patch.setattr(numbers._groups, "_execute", never)
        with pytest.raises(Unavailable):
            await asyncio.wait_for(numbers.submit("1"), 10)
    monkeypatch.setattr(group_commit, "SEND_SECONDS", 20)
    assert await asyncio.wait_for(numbers.submit("2"), 10) == 2


async def test_a_full_disk_fails_the_group_with_its_own_words_and_ends_no_slot(numbers: Numbers) -> None:
    before = slot_tasks()
    numbers.failure = asyncpg.DiskFullError("could not extend file")
    with pytest.raises(Unavailable) as caught:
        await numbers.submit("1")
    assert str(caught.value) == DISK_FULL
    assert numbers.database.disk.full
    assert await numbers.database.is_usable() is False, "while it is full, nothing is held against a task"
    numbers.failure = None
    assert await numbers.submit("2") == 2
    assert slot_tasks() == before
    await numbers.database.probe_disk()
    assert await numbers.database.is_usable()


@pytest.mark.parametrize("cancels", [3, 10**9])
async def test_a_group_that_the_server_cancels_is_sent_again(
    numbers: Numbers, database_url: str, monkeypatch: pytest.MonkeyPatch, cancels: int
) -> None:
    """It was rolled back, and its connection works."""
    before, left, operator = slot_tasks(), cancels, Operator(await asyncpg.connect(database_url))

    async def read(connection: asyncpg.Connection, entries: Sequence[str]) -> list[int]:
        nonlocal left
        if left:
            left -= 1
            await operator.cancel(connection)
        return await numbers._read(connection, entries)

    monkeypatch.setattr(numbers._groups, "_execute", read)
    if cancels == 3:
        assert await numbers.submit("1") == 1
    else:
        with pytest.raises(Unavailable) as caught:
            await numbers.submit("1")
        assert caught.value.retry_after == 1
        left = 0
    assert await numbers.submit("2") == 2
    assert slot_tasks() == before
    await operator.connection.close()


async def test_a_canary_is_sent_like_entries_and_writes_nothing(
    numbers: Numbers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit, "CANARY_SECONDS", -1)
    await numbers._groups._canary()
    assert numbers.groups == []
    for slot in slot_tasks():
        slot.cancel()
    await numbers._groups._canary()


async def test_an_entry_that_waits_apart_for_a_lock_is_resolved_if_the_server_stops_before(numbers: Numbers) -> None:
    numbers.failure = asyncpg.LockNotAvailableError("held")
    future = numbers.submit("7")
    await numbers.begun.get()
    await numbers.aclose()  # its task has not run yet
    with pytest.raises(Unavailable, match="stopping"):
        async with asyncio.timeout(5):
            await future
