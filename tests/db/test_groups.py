"""What many callers want written goes out in groups."""

import asyncio
from collections.abc import AsyncIterator, Sequence

import asyncpg
import pytest

from app.db.engine import Database
from app.db.groups import MOST, Groups

LANES = 2


class Numbers:
    """Texts → the numbers that they are, read by the database. It remembers the groups and who served them."""

    def __init__(self, database: Database) -> None:
        self.groups: list[list[str]] = []
        self.served_by: list[asyncpg.Connection] = []
        self.begun: asyncio.Queue[int] = asyncio.Queue()
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self._groups: Groups[str, int] = Groups("numbers", database, self._read, key=lambda entry: entry, lanes=LANES)
        self._groups.start()
        self.submit, self.aclose = self._groups.submit, self._groups.aclose

    async def _read(self, connection: asyncpg.Connection, entries: Sequence[str]) -> list[int]:
        self.groups.append(list(entries))
        self.served_by.append(connection)
        self.begun.put_nowait(len(entries))
        await self.may_answer.wait()
        rows = await connection.fetch("select e::int as number from unnest($1::text[]) as e", list(entries))
        return [row["number"] for row in rows]

    async def all_lanes_busy(self) -> list[asyncio.Future[int]]:
        """Occupy every lane, each with one entry, until ``may_answer``."""
        self.may_answer.clear()
        occupying = []
        for number in range(LANES):
            occupying.append(self.submit(str(number)))
            assert await self.begun.get() == 1
        return occupying


@pytest.fixture
async def numbers(database_url: str) -> AsyncIterator[Numbers]:
    database = Database(database_url, requests=1, engine=LANES)
    numbers = Numbers(database)
    assert await numbers.submit("0") == 0
    numbers.groups.clear()
    numbers.served_by.clear()
    await numbers.begun.get()
    yield numbers
    await numbers.aclose()
    await database.aclose()


async def test_what_comes_while_every_lane_is_busy_goes_out_together(numbers: Numbers) -> None:
    occupying = await numbers.all_lanes_busy()
    others = [numbers.submit(str(number)) for number in range(10, 20)]
    numbers.may_answer.set()
    assert await asyncio.gather(*occupying, *others) == [0, 1, *range(10, 20)]
    assert numbers.groups == [["0"], ["1"], [str(number) for number in range(10, 20)]]


async def test_what_is_too_much_for_one_group_goes_on_another_lane_at_once(numbers: Numbers) -> None:
    numbers.may_answer.clear()
    asked = [numbers.submit(str(number)) for number in range(MOST + 3)]
    assert [await numbers.begun.get() for _ in range(LANES)] == [MOST, 3]
    numbers.may_answer.set()
    assert await asyncio.gather(*asked) == list(range(MOST + 3))


async def test_who_writes_one_thing_after_the_other_finds_the_same_connection(numbers: Numbers) -> None:
    for number in range(6):
        assert await numbers.submit(str(number)) == number
    assert len(set(numbers.served_by)) == 1


async def test_entries_of_one_key_go_out_one_after_the_other_and_hold_up_nobody_else(numbers: Numbers) -> None:
    same = [numbers.submit("7") for _ in range(3)]
    other = numbers.submit("8")
    assert await asyncio.gather(*same, other) == [7, 7, 7, 8]
    assert numbers.groups == [["7", "8"], ["7"], ["7"]]


async def test_of_a_group_the_guilty_entry_alone_fails(numbers: Numbers) -> None:
    one, bad, two = (numbers.submit(text) for text in ("1", "no number", "2"))
    assert (await one, await two) == (1, 2)
    with pytest.raises(asyncpg.DataError):
        await bad


async def test_a_connection_that_broke_while_it_had_nothing_to_do_fails_nobody(numbers: Numbers) -> None:
    assert await numbers.submit("1") == 1
    broken = numbers.served_by[-1]
    broken.terminate()
    assert await numbers.submit("2") == 2
    assert numbers.served_by[-1] is not broken
