"""The ranking of a search by words."""

import re
from collections.abc import Sequence
from uuid import UUID

import asyncpg
import msgspec

from app.store.filters import Condition
from app.store.sizes import Lately
from app.store.statements import Place, matches

MANY = 1000
"""Items with one of the words from which on these say too little to be ranked by."""

MOST_WORDS = 1000
"""Characters of a question whose words are looked for."""

COMMON_SECONDS = 600.0
"""How long a word that many items have is remembered."""

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


class Wording:
    """Ranks by words, and remembers which ones very many items have: these say nothing beside rarer ones."""

    def __init__(self) -> None:
        self._common: Lately[tuple[Place, str], bool] = Lately(COMMON_SECONDS)

    async def ranked(self, connection: asyncpg.Connection, wanted: Wanted) -> list[UUID]:
        """Items with any of the words that not very many have, else those with all of the words.

        Where very many have even all of them nothing is ranked, unless words must do ``alone``.
        """
        asked = _without(wanted.text[:MOST_WORDS], STOP) or wanted.text[:MOST_WORDS]
        rest = _without(asked, self._known(wanted.place, asked))
        found, full = await _found(connection, wanted, rest, every=False)
        if full:
            await self._learn(connection, wanted.place, rest)
            rest = _without(rest, self._known(wanted.place, rest))
            found, full = await _found(connection, wanted, rest, every=False)
        if full or not rest:
            found, full = await _found(connection, wanted, asked, every=True)
        if wanted.alone and len(found) < wanted.most:
            more, _ = await _found(connection, wanted, asked, every=False)
            return list(dict.fromkeys([*found, *more]))[: wanted.most]
        return [] if full else found

    def _known(self, place: Place, text: str) -> set[str]:
        return {word for word in _words(text) if self._common.get((place, word))}

    async def _learn(self, connection: asyncpg.Connection, place: Place, text: str) -> None:
        """Remember which words of ``text`` very many items have."""
        for word in _words(text):
            statement, values = matches(place, word, every=False, looked_at=MANY + 1, most=1, conditions=None)
            rows = await connection.fetch(statement, *values)
            if rows and rows[0]["looked"] > MANY:
                self._common.put((place, word), True)


async def _found(connection: asyncpg.Connection, wanted: Wanted, words: str, *, every: bool) -> tuple[list[UUID], bool]:
    """The best items with ``every`` one of ``words`` or any, and whether more have them than are looked at."""
    if not words:
        return [], False
    looked_at = MANY + 1
    most = wanted.most if wanted.conditions is None else looked_at
    text, values = matches(
        wanted.place, words, every=every, looked_at=looked_at, most=most, conditions=wanted.conditions
    )
    rows = await connection.fetch(text, *values)
    full = bool(rows) and rows[0]["looked"] == looked_at
    return [row["item_id"] for row in rows if row["passes"]][: wanted.most], full


def _words(text: str) -> set[str]:
    return {word.lower() for word in _WORD.findall(text)}


def _without(text: str, words: "set[str] | frozenset[str]") -> str:
    """``text`` without ``words``; empty where none is left."""
    rest = _WORD.sub(lambda word: " " if word[0].lower() in words else word[0], text)
    return rest if _WORD.search(rest) else ""
