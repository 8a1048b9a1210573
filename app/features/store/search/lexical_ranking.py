"""The ranking of a search by words."""

import re
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from app.features.store.search.filters import FilterCondition
from app.features.store.search.sql import ScanEstimate, SearchScope, matches, shares
from app.features.store.search.statistics import UNKNOWN, TTLCache, VectorCount, WordSample, WordStatistics

MANY = 200
"""Items that are ranked by words at the most."""

HITS = 10 * MANY
"""Items of a tenant that are looked at for those below a prefix."""

COMMON = 0.25
"""The part of more than ``MANY`` items that has a word from which on it says too little beside rarer ones."""

ROUNDS = 3
"""How often it is tried with fewer words, the most common ones left out."""

MAX_QUERY_WORDS = 32
"""Words of a question that are looked for, the longest."""

MAX_QUERY_LENGTH = 1000
"""Characters of a question whose words are looked for."""

COMMON_SECONDS = 600.0
"""How long a common word is remembered."""

_STOP = """
a about am an and any are as at be been but by can could did do does for from had has have he her him his how i if in
into is it its me my of on or our she so some that the their them then there they this to us was we were what when where
which who whom why will with would you your
"""
STOP = frozenset(_STOP.split())
"""Words of questions that say nothing, in English; left out where others remain."""

_WORD = re.compile(r"\w+")


class LexicalQuery(msgspec.Struct, frozen=True, kw_only=True):
    """``max_rows`` items at ``place`` that fulfil ``conditions`` (None: there are none), by the words of ``text``.

    ``size``: of the vectors there; None where no ranking but this one answers.
    """

    place: SearchScope
    text: str
    conditions: Sequence[FilterCondition] | None
    max_rows: int
    size: VectorCount | None

    @property
    def alone(self) -> bool:
        """Whether no other ranking answers."""
        return self.size is None


class LexicalHits(msgspec.Struct, frozen=True):
    """``items``, the best first; there may be more if they are ``full``."""

    items: list[UUID]
    full: bool


class LexicalRanking:
    """Ranks by words, and remembers which ones are common: these say nothing beside rarer ones."""

    def __init__(self) -> None:
        self._common: TTLCache[tuple[SearchScope, str], bool] = TTLCache(COMMON_SECONDS)
        self._samples = WordStatistics()

    async def ranked(self, connection: asyncpg.Connection, wanted: LexicalQuery) -> list[UUID]:
        """Items with any of the words that are not common, where no more than ``MANY`` have these, else with all words.

        Where very many have even all of the words nothing is ranked, unless words must do ``alone``.
        """
        words = _words(_without(wanted.text[:MAX_QUERY_LENGTH], STOP))
        sample = UNKNOWN
        if words and wanted.size is not None:
            sample = await self._samples.of(connection, wanted.place, wanted.size)
        asking = _LexicalScan(connection, wanted, sample)
        items = await self._with_rare(asking, words)
        if items is None:
            found = await asking.found(words, every=True)
            items = found.items if wanted.alone or not found.full else []
        if wanted.alone and len(items) < wanted.max_rows:
            more = await asking.found(words, every=False)
            items = list(dict.fromkeys([*items, *more.items]))[: wanted.max_rows]
        return items

    async def _with_rare(self, asking: "_LexicalScan", words: Sequence[str]) -> list[UUID] | None:
        """Items with any of the rare ones of ``words``; None where there are no such words."""
        place = asking.wanted.place
        rare = sifted([word for word in words if not self._common.get((place, word))], asking.sample)
        found = LexicalHits([], full=False)
        for _ in range(ROUNDS):
            if words and not rare:
                return None
            found = await asking.found(rare, every=False)
            if not found.full:
                return found.items
            shares = await asking.shares(rare)
            common = {word for word in rare if shares.get(word, 0) >= COMMON}
            for word in common:
                self._common.put((place, word), True)
            rarest = sorted(rare, key=lambda word: shares.get(word, 0))[: (len(rare) + 1) // 2]
            rare = [word for word in (rare if common else rarest) if word not in common]
        return found.items if rare else None


class _LexicalScan(msgspec.Struct, frozen=True):
    """How a search by words asks the database."""

    connection: asyncpg.Connection
    wanted: LexicalQuery
    sample: WordSample

    async def found(self, words: Sequence[str], *, every: bool) -> LexicalHits:
        """The best items with ``every`` one of ``words`` or any."""
        if not words:
            return LexicalHits([], full=False)
        wanted = self.wanted
        looked = ScanEstimate(self.sample.mostly, None if wanted.alone else HITS, MANY + 1)
        max_rows = wanted.max_rows if wanted.conditions is None else looked.found
        text, values = matches(
            wanted.place, words, every=every, looked=looked, max_rows=max_rows, conditions=wanted.conditions
        )
        rows = await self.connection.fetch(text, *values)
        full = bool(rows) and rows[0]["full"]
        return LexicalHits([row["item_id"] for row in rows if row["passes"]][: wanted.max_rows], full)

    async def shares(self, words: Sequence[str]) -> dict[str, float]:
        """In which part of the items that have any of ``words`` each of these is."""
        text, values = shares(self.wanted.place, words, MANY + 1)
        return {row["word"]: row["share"] for row in await self.connection.fetch(text, *values)}


def sifted(words: Sequence[str], sample: WordSample) -> list[str]:
    """``words`` without those that a look at their items would show as common, as far as ``sample`` says."""
    rest = {word: _count(word, sample) for word in words}
    while (every := sum(rest.values())) > MANY:
        fewer = {word: count for word, count in rest.items() if count < COMMON * every}
        if len(fewer) == len(rest):
            break
        rest = fewer
    return list(rest)


def _count(word: str, sample: WordSample) -> float:
    """How many items have ``word`` at the least. Of an address, say, a sample says nothing."""
    parts = _WORD.findall(word)
    return sample.counts.get(parts[0], 0) if len(parts) == 1 else 0


def _words(text: str) -> list[str]:
    """What stands between spaces, as a whole: only PostgreSQL knows which of it, an address say, is one word."""
    words = {word for word in text.lower().split() if _WORD.search(word)}
    return sorted(words, key=lambda word: (-len(word), word))[:MAX_QUERY_WORDS]


def _without(text: str, words: frozenset[str]) -> str:
    """``text`` without ``words``, where others remain."""
    rest = _WORD.sub(lambda word: " " if word[0].lower() in words else word[0], text)
    return rest if _WORD.search(rest) else text
