"""The statements of a search. Each is text with numbered parameters, the same for the same kind of search, so that the
database plans it once for each connection and keeps the plan (``SETTINGS``).

An item is called ``i``, a vector ``v``.
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.features.store.index.indexing import NeighbourQuery
from app.features.store.search.filters import FilterCondition
from app.features.store.validation import range_of

EF_SEARCH = 200
"""Candidates that the walk over the index of vectors keeps in view: more are slower, and nearer the truth."""

_PLANS = """
set local plan_cache_mode = force_generic_plan; set local enable_sort = off; set local enable_seqscan = off;
set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
"""
SETTINGS = f"""{_PLANS}
set local hnsw.iterative_scan = relaxed_order; set local hnsw.ef_search = {EF_SEARCH};
set local hnsw.max_scan_tuples = 40000; set local hnsw.scan_mem_multiplier = 4;
"""
"""What each statement does is decided here and not by PostgreSQL, which knows a tenant's size only from its statistics:
the walk goes over the index of vectors, all else by keys."""

PLANNED_ANEW = "set local plan_cache_mode = force_custom_plan;"
"""For what PostgreSQL plans by what is asked for."""

LONG = 2000
"""Bytes from which on an item's words lie apart from it."""

LIVE = "(i.expires_at is null or i.expires_at > now())"

SHOWN = "i.namespace, i.key, i.value::text as value, i.created_at, i.updated_at, i.item_id, i.ttl_minutes"


class SearchScope(msgspec.Struct, frozen=True):
    """Where is looked: what the tenant has at and below ``path``."""

    tenant_id: UUID
    path: str


class SqlBuilder:
    """Text that grows, and its parameters."""

    def __init__(self, place: SearchScope) -> None:
        self.values: list[Any] = []
        self._place = place
        self._known: dict[str, str] = {}

    def add(self, value: Any, kind: str) -> str:
        """A parameter, as it stands in the text."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    @property
    def tenant(self) -> str:
        """Whose items are meant."""
        if "tenant" not in self._known:
            self._known["tenant"] = self.add(self._place.tenant_id, "uuid")
        return self._known["tenant"]

    @property
    def span(self) -> tuple[str, str]:
        """From where to before where its namespaces lie."""
        if "first" not in self._known:
            first, last = range_of(self._place.path)
            self._known |= {"first": self.add(first, "text"), "last": self.add(last, "text")}
        return self._known["first"], self._known["last"]

    def within(self, table: str) -> str:
        """That a row lies at the place."""
        first, last = self.span
        return f"{table}.tenant_id = {self.tenant} and {table}.namespace >= {first} and {table}.namespace < {last}"

    def passing(self, conditions: Sequence[FilterCondition]) -> str:
        """That an item's time is not over, and that it fulfils ``conditions``."""
        texts = [one.text.format(*(self.add(*value) for value in one.values)) for one in conditions]
        return " and ".join([LIVE, *texts])

    def distance(self, near: NeighbourQuery) -> str:
        """How far a vector is from ``near``. As a subquery the other one is read once and not for every row."""
        return f"v.embedding <=> (select {self.add(near.vector, f'text::halfvec({near.width})')})"

    def in_space(self, near: NeighbourQuery) -> str:
        """That a vector lies at the place and can be compared with ``near``."""
        return f"{self.within('v')} and v.space = {self.add(near.space, 'int')}"


BoundSql = tuple[str, list[Any]]
"""A statement and its parameters."""


def hnsw_scan(
    place: SearchScope, near: NeighbourQuery, max_rows: int, conditions: Sequence[FilterCondition] | None
) -> BoundSql:
    """The nearest ``max_rows`` vectors, by a walk over the index that goes on until so many have passed.

    With ``conditions`` their items are looked at on the way; without, not even whether their time is over.
    """
    statement = SqlBuilder(place)
    joined = ""
    if conditions is not None:
        passing = statement.passing(conditions)
        joined = f"join store_items i on i.tenant_id = v.tenant_id and i.item_id = v.item_id and {passing}"
    text = f"""
select v.item_id, {statement.distance(near)} as distance from store_vectors_{near.width} v {joined}
where {statement.in_space(near)} order by distance limit {statement.add(max_rows, "int")}
"""
    return text, statement.values


def exact_scan(
    place: SearchScope, near: NeighbourQuery, max_rows: int, conditions: Sequence[FilterCondition] | None
) -> BoundSql:
    """The nearest ``max_rows`` vectors, out of a look at each of them."""
    statement = SqlBuilder(place)
    if conditions is None:
        items, source = "", f"store_vectors_{near.width} v"
    else:
        items = f"""items as materialized (
  select i.tenant_id, i.item_id from store_items i where {statement.within("i")} and {statement.passing(conditions)}
), """
        source = f"items join store_vectors_{near.width} v using (tenant_id, item_id)"
    text = f"""
with {items}every as materialized (
  select v.item_id, {statement.distance(near)} as distance from {source} where {statement.in_space(near)}
)
select item_id, distance from every order by distance limit {statement.add(max_rows, "int")}
"""
    return text, statement.values


class ScanEstimate(msgspec.Struct, frozen=True):
    """How many items are looked at: of all that the tenant has (None: any number), and of those at a place.

    ``mostly``: most of the items of all tenants lie at the place.
    """

    mostly: bool
    hits: int | None
    found: int


def matches(
    place: SearchScope,
    words: Sequence[str],
    *,
    every: bool,
    looked: ScanEstimate,
    max_rows: int,
    conditions: Sequence[FilterCondition] | None,
) -> BoundSql:
    """The ``max_rows`` items that have ``every`` one of ``words`` or any, the best first, out of ``looked``.

    ``full``: there may be more.
    """
    statement = SqlBuilder(place)
    given = [statement.add(list(words), "text[]"), statement.add(every, "boolean"), *statement.span]
    given.append(statement.add(looked.mostly, "boolean"))
    given += [statement.add(count, "int") for count in (looked.hits, looked.found, max_rows)]
    asked = f"store_matches({', '.join(given)})"
    if conditions is None:
        return f'select item_id, "full", item_id is not null as passes from {asked}', statement.values
    text = f"""
select m.item_id, m."full", i.item_id is not null as passes from {asked} m
left join store_items i
  on i.tenant_id = {statement.tenant} and i.item_id = m.item_id and {statement.passing(conditions)}
order by m.rank desc nulls last, m.item_id desc
"""
    return text, statement.values


def shares(place: SearchScope, words: Sequence[str], looked: int) -> BoundSql:
    """In which part of ``looked`` items of the tenant that have any of ``words`` each of these is."""
    statement = SqlBuilder(place)
    text = f"""
select word, share from store_shares({statement.add(list(words), "text[]")}, {statement.add(looked, "int")})
"""
    return text, statement.values


def page(place: SearchScope, items: Sequence[UUID], limit: int, offset: int) -> BoundSql:
    """Those of ``items`` whose time is not over, in their order, each with its ``place`` among them, from 1 on."""
    statement = SqlBuilder(place)
    text = f"""
select {SHOWN}, f.place from unnest({statement.add(list(items), "uuid[]")}) with ordinality as f(item_id, place)
join store_items i on i.tenant_id = {statement.tenant} and i.item_id = f.item_id
where {LIVE}
order by f.place limit {statement.add(limit, "int")} offset {statement.add(offset, "int")}
"""
    return text, statement.values


def newest(place: SearchScope, conditions: Sequence[FilterCondition], limit: int, offset: int) -> BoundSql:
    """A page of the items that fulfil ``conditions``, the last put first."""
    statement = SqlBuilder(place)
    text = f"""
select {SHOWN} from store_items i
where {statement.within("i")} and {statement.passing(conditions)}
order by i.updated_at desc, i.item_id desc
limit {statement.add(limit, "int")} offset {statement.add(offset, "int")}
"""
    return text, statement.values


def size(place: SearchScope, near: NeighbourQuery, max_rows: int) -> BoundSql:
    """How many vectors come into question, counted up to ``max_rows``, and about how many there are of all tenants."""
    statement = SqlBuilder(place)
    table = f"store_vectors_{near.width}"
    text = f"""
select (
  select count(*) from (
    select from {table} v where {statement.in_space(near)} limit {statement.add(max_rows, "int")}) few
) as own, (select reltuples::bigint from pg_class where oid = '{table}'::regclass) as total
"""
    return text, statement.values


def sample(place: SearchScope, part: float, least: int) -> BoundSql:
    """How many items lie at the place in a ``part`` of the table's pages, and the words that ``least`` of these have.

    Long items are passed over: to read them would cost too much.
    """
    statement = SqlBuilder(place)
    text = f"""
with picked as materialized (
  select i.words from store_items i tablesample system ({statement.add(100 * part, "float8")}) repeatable (1)
  where {statement.within("i")} and pg_column_size(i.words) < {LONG}
)
select null as word, count(*) as items from picked
union all
select w.word, count(*) from picked p, unnest(tsvector_to_array(p.words)) as w(word)
group by w.word having count(*) >= {statement.add(least, "int")}
"""
    return text, statement.values
