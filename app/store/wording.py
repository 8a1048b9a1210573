"""The ranking of a search by words."""

import re
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from app.store.filters import Condition
from app.store.sizes import Lately
from app.store.statements import Looked, Place, matches

MANY = 300
"""Items that are ranked by words at the most."""

HITS = 10 * MANY
"""Items of a tenant that are looked at for those below a prefix."""

COMMON = 0.25
"""The part of more than ``MANY`` items that has a word from which on it says too little beside rarer ones."""

ROUNDS = 3
"""How often it is tried with fewer words, the most common ones left out."""

MOST_ASKED = 32
"""Words of a question that are looked for, the longest."""

MOST_WORDS = 1000
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


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """``most`` items at ``place`` that fulfil ``conditions`` (None: there are none), by the words of ``text``.

    ``alone``: no other ranking answers.
    """

    place: Place
    text: str
    conditions: Sequence[Condition] | None
    most: int
    alone: bool


class Found(msgspec.Struct, frozen=True):
    """``items``, the best first; there may be more if they are ``full``: then words have ``shares`` of them."""

    items: list[UUID]
    full: bool
    shares: dict[str, float]


class Wording:
    """Ranks by words, and remembers which ones are common: these say nothing beside rarer ones."""

    def __init__(self) -> None:
        self._common: Lately[tuple[Place, str], bool] = Lately(COMMON_SECONDS)

    async def ranked(self, connection: asyncpg.Connection, wanted: Wanted) -> list[UUID]:
        """Items with any of the words that are not common, where no more than ``MANY`` have these, else with all words.

        Where very many have even all of the words nothing is ranked, unless words must do ``alone``.
        """
        words = _words(_without(wanted.text[:MOST_WORDS], STOP))
        items = await self._with_rare(connection, wanted, words)
        if items is None:
            found = await _found(connection, wanted, words, every=True)
            items = found.items if wanted.alone or not found.full else []
        if wanted.alone and len(items) < wanted.most:
            more = await _found(connection, wanted, words, every=False)
            items = list(dict.fromkeys([*items, *more.items]))[: wanted.most]
        return items

    async def _with_rare(
        self, connection: asyncpg.Connection, wanted: Wanted, words: Sequence[str]
    ) -> list[UUID] | None:
        """Items with any of the rare ones of ``words``; None where there are no such words."""
        rare = [word for word in words if not self._common.get((wanted.place, word))]
        found = Found([], full=False, shares={})
        for _ in range(ROUNDS):
            if words and not rare:
                return None
            found = await _found(connection, wanted, rare, every=False)
            if not found.full:
                return found.items
            common = {word for word in rare if found.shares[word] >= COMMON}
            for word in common:
                self._common.put((wanted.place, word), True)
            rarest = sorted(rare, key=lambda word: found.shares[word])[: (len(rare) + 1) // 2]
            rare = [word for word in (rare if common else rarest) if word not in common]
        return found.items if rare else None


async def _found(connection: asyncpg.Connection, wanted: Wanted, words: Sequence[str], *, every: bool) -> Found:
    """The best items with ``every`` one of ``words`` or any."""
    if not words:
        return Found([], full=False, shares={})
    looked = Looked(None if wanted.alone else HITS, MANY + 1)
    most = wanted.most if wanted.conditions is None else looked.found
    text, values = matches(wanted.place, words, every=every, looked=looked, most=most, conditions=wanted.conditions)
    rows = await connection.fetch(text, *values)
    full = bool(rows) and rows[0]["full"]
    shares = dict(zip(words, rows[0]["shares"], strict=True)) if full else {}
    return Found([row["item_id"] for row in rows if row["passes"]][: wanted.most], full, shares)


def _words(text: str) -> list[str]:
    """What stands between spaces, as a whole: only PostgreSQL knows which of it, an address say, is one word."""
    words = {word for word in text.lower().split() if _WORD.search(word)}
    return sorted(words, key=lambda word: (-len(word), word))[:MOST_ASKED]


def _without(text: str, words: frozenset[str]) -> str:
    """``text`` without ``words``, where others remain."""
    rest = _WORD.sub(lambda word: " " if word[0].lower() in words else word[0], text)
    return rest if _WORD.search(rest) else text
