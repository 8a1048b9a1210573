"""Rank items by words: rare words first, since common ones say little next to them."""

import re
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from app.base.ttl_cache import TTLCache
from app.features.store.search.filters import FilterCondition
from app.features.store.search.sql import ScanLimits, SearchScope, lexical_matches, word_shares
from app.features.store.search.statistics import MAX_CACHED_KEYS, UNKNOWN, VectorCount, WordSample, WordStatistics

MAX_MATCHES = 200
"""Items that are ranked by words."""
MAX_TENANT_MATCHES = 10 * MAX_MATCHES
"""Items of a tenant that are read to find those below a prefix."""
COMMON_SHARE = 0.25
"""A word is common if this share of more than ``MAX_MATCHES`` items has it."""
MAX_ROUNDS = 3
"""Attempts with fewer words, each without the most common ones."""
MAX_QUERY_WORDS = 32
"""Words of a query that are searched, the longest ones."""
MAX_QUERY_LENGTH = 1000
"""Characters of a query that are searched."""
COMMON_TTL_SECONDS = 600.0

_STOP_WORDS = """
a about am an and any are as at be been but by can could did do does for from had has have he her him his how i if in
into is it its me my of on or our she so some that the their them then there they this to us was we were what when where
which who whom why will with would you your
"""
STOP_WORDS = frozenset(_STOP_WORDS.split())
"""English stop words, left out of a query that has other words."""

_WORD = re.compile(r"\w+")


class LexicalQuery(msgspec.Struct, frozen=True, kw_only=True):
    """A search for ``max_rows`` items in ``scope`` that meet ``conditions`` (None: not checked), by words of ``text``.

    ``vectors``: the count of vectors in the scope, None if there is no ranking by vectors.
    """

    scope: SearchScope
    text: str
    conditions: Sequence[FilterCondition] | None
    max_rows: int
    vectors: VectorCount | None

    @property
    def alone(self) -> bool:
        """Whether this is the only ranking."""
        return self.vectors is None


class LexicalHits(msgspec.Struct, frozen=True):
    """``items``, the best first; ``full`` if there may be more."""

    items: list[UUID]
    full: bool


class LexicalRanking:
    """Ranks items by words, with a cache of common ones."""

    def __init__(self) -> None:
        self._common: TTLCache[tuple[SearchScope, str], bool] = TTLCache(MAX_CACHED_KEYS, COMMON_TTL_SECONDS)
        self._samples = WordStatistics()

    async def rank(self, connection: asyncpg.Connection, query: LexicalQuery) -> list[UUID]:
        """Return items with any rare word if at most ``MAX_MATCHES`` have one, else those with all words.

        Returns nothing if too many items have even all words, unless this is the only ranking.
        """
        words = _words(_remove_words(query.text[:MAX_QUERY_LENGTH], STOP_WORDS))
        sample = UNKNOWN
        if words and query.vectors is not None:
            sample = await self._samples.get(connection, query.scope, query.vectors)
        scan = _LexicalScan(connection, query, sample)
        items = await self._rank_by_rare(scan, words)
        if items is None:
            found = await scan.find(words, match_all=True)
            items = found.items if query.alone or not found.full else []
        if query.alone and len(items) < query.max_rows:
            more = await scan.find(words, match_all=False)
            items = list(dict.fromkeys([*items, *more.items]))[: query.max_rows]
        return items

    async def _rank_by_rare(self, scan: "_LexicalScan", words: Sequence[str]) -> list[UUID] | None:
        """Return items with any rare one of ``words``, None if all words are common."""
        scope = scan.query.scope
        rare = drop_common([word for word in words if not self._common.get((scope, word))], scan.sample)
        found = LexicalHits([], full=False)
        for _ in range(MAX_ROUNDS):
            if words and not rare:
                return None
            found = await scan.find(rare, match_all=False)
            if not found.full:
                return found.items
            shares = await scan.shares(rare)
            common = {word for word in rare if shares.get(word, 0) >= COMMON_SHARE}
            for word in common:
                self._common.put((scope, word), True)
            rarest = sorted(rare, key=lambda word: shares.get(word, 0))[: (len(rare) + 1) // 2]
            rare = [word for word in (rare if common else rarest) if word not in common]
        return found.items if rare else None


class _LexicalScan(msgspec.Struct, frozen=True):
    """Runs the statements of one ranking by words."""

    connection: asyncpg.Connection
    query: LexicalQuery
    sample: WordSample

    async def find(self, words: Sequence[str], *, match_all: bool) -> LexicalHits:
        """Return the best items that have all or any of ``words``."""
        if not words:
            return LexicalHits([], full=False)
        query = self.query
        limits = ScanLimits(self.sample.dominant, None if query.alone else MAX_TENANT_MATCHES, MAX_MATCHES + 1)
        max_rows = query.max_rows if query.conditions is None else limits.scope_items
        text, values = lexical_matches(
            query.scope, words, match_all=match_all, limits=limits, max_rows=max_rows, conditions=query.conditions
        )
        rows = await self.connection.fetch(text, *values)
        full = bool(rows) and rows[0]["full"]
        return LexicalHits([row["item_id"] for row in rows if row["passes"]][: query.max_rows], full)

    async def shares(self, words: Sequence[str]) -> dict[str, float]:
        """Return for each of ``words`` the share of items that have it, of those that have any."""
        text, values = word_shares(self.query.scope, words, MAX_MATCHES + 1)
        return {row["word"]: row["share"] for row in await self.connection.fetch(text, *values)}


def drop_common(words: Sequence[str], sample: WordSample) -> list[str]:
    """Return ``words`` without those that are common according to ``sample``."""
    rest = {word: _count(word, sample) for word in words}
    while (total := sum(rest.values())) > MAX_MATCHES:
        fewer = {word: count for word, count in rest.items() if count < COMMON_SHARE * total}
        if len(fewer) == len(rest):
            break
        rest = fewer
    return list(rest)


def _count(word: str, sample: WordSample) -> float:
    """Return a lower bound of the items with ``word``; 0 for one of several parts, such as an address."""
    parts = _WORD.findall(word)
    return sample.counts.get(parts[0], 0) if len(parts) == 1 else 0


def _words(text: str) -> list[str]:
    """Split at spaces only: PostgreSQL's parser decides what is one word, for example an address."""
    words = {word for word in text.lower().split() if _WORD.search(word)}
    return sorted(words, key=lambda word: (-len(word), word))[:MAX_QUERY_WORDS]


def _remove_words(text: str, words: frozenset[str]) -> str:
    """Return ``text`` without ``words``, unchanged if no others remain."""
    rest = _WORD.sub(lambda word: " " if word[0].lower() in words else word[0], text)
    return rest if _WORD.search(rest) else text
