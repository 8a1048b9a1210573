"""SQL of searches. Items are aliased ``i``, vectors ``v``.

The text of a statement depends only on the kind of search, so that each connection prepares it once and reuses its
generic plan (``SEARCH_SETTINGS``).
"""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec

from app.features.store.search.filters import FilterCondition
from app.features.store.validation import range_of
from app.features.store.vectors import NeighbourQuery

EF_SEARCH = 200
"""Candidates of an HNSW scan: more are slower and more exact."""

_PLANS = """
set local plan_cache_mode = force_generic_plan; set local enable_sort = off; set local enable_seqscan = off;
set local enable_bitmapscan = off; set local enable_hashjoin = off; set local enable_mergejoin = off;
"""
SEARCH_SETTINGS = f"""{_PLANS}
set local hnsw.iterative_scan = relaxed_order; set local hnsw.ef_search = {EF_SEARCH};
set local hnsw.max_scan_tuples = 40000; set local hnsw.scan_mem_multiplier = 4;
"""
"""Force plans by index: PostgreSQL knows a tenant's size only from its statistics and would often choose wrongly. The
HNSW scan uses the vector index, everything else keys."""

CUSTOM_PLAN_SETTINGS = "set local plan_cache_mode = force_custom_plan;"
"""For statements whose best plan depends on their parameters."""

TOAST_BYTES = 2000
"""Size from which an item's words are stored out of line, so that reading them costs more."""

NOT_EXPIRED = "(i.expires_at is null or i.expires_at > now())"

ITEM_COLUMNS = "i.namespace, i.key, i.value::text as value, i.created_at, i.updated_at, i.item_id, i.ttl_minutes"


class SearchScope(msgspec.Struct, frozen=True):
    """The items of a tenant at and below ``path``."""

    tenant_id: UUID
    path: str


class SqlBuilder:
    """Builds a statement in a scope and collects its parameters in ``values``."""

    def __init__(self, scope: SearchScope) -> None:
        self.values: list[Any] = []
        self._scope = scope
        self._names: dict[str, str] = {}

    def add(self, value: Any, kind: str) -> str:
        """Add a parameter. Return its placeholder."""
        self.values.append(value)
        return f"${len(self.values)}::{kind}"

    @property
    def tenant(self) -> str:
        """Placeholder of the tenant."""
        if "tenant" not in self._names:
            self._names["tenant"] = self.add(self._scope.tenant_id, "uuid")
        return self._names["tenant"]

    @property
    def span(self) -> tuple[str, str]:
        """Placeholders of the range of namespaces: first, and first after."""
        if "first" not in self._names:
            first, last = range_of(self._scope.path)
            self._names |= {"first": self.add(first, "text"), "last": self.add(last, "text")}
        return self._names["first"], self._names["last"]

    def within(self, table: str) -> str:
        """Condition: a row is in the scope."""
        first, last = self.span
        return f"{table}.tenant_id = {self.tenant} and {table}.namespace >= {first} and {table}.namespace < {last}"

    def passing(self, conditions: Sequence[FilterCondition]) -> str:
        """Condition: an item has not expired and meets ``conditions``."""
        texts = [one.text.format(*(self.add(*value) for value in one.values)) for one in conditions]
        return " and ".join([NOT_EXPIRED, *texts])

    def distance(self, near: NeighbourQuery) -> str:
        """Distance of a vector from ``near``."""
        return f"v.embedding <=> {self.add(near.vector, 'halfvec')}"

    def in_space(self, near: NeighbourQuery) -> str:
        """Condition: a vector is in the scope and can be compared with ``near``."""
        return f"{self.within('v')} and v.space = {self.add(near.space, 'int')}"


BoundSql = tuple[str, list[Any]]
"""A statement and its parameters."""


def hnsw_scan(
    scope: SearchScope, near: NeighbourQuery, max_rows: int, conditions: Sequence[FilterCondition] | None
) -> BoundSql:
    """The nearest ``max_rows`` vectors by an iterative HNSW scan, which continues until that many rows pass.

    ``conditions`` are checked on the items during the scan; with None items are not read, so they may have expired.
    """
    statement = SqlBuilder(scope)
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
    scope: SearchScope, near: NeighbourQuery, max_rows: int, conditions: Sequence[FilterCondition] | None
) -> BoundSql:
    """The nearest ``max_rows`` vectors by comparing all vectors in the scope."""
    statement = SqlBuilder(scope)
    if conditions is None:
        items, source = "", f"store_vectors_{near.width} v"
    else:
        items = f"""items as materialized (
  select i.tenant_id, i.item_id from store_items i where {statement.within("i")} and {statement.passing(conditions)}
), """
        source = f"items join store_vectors_{near.width} v using (tenant_id, item_id)"
    text = f"""
with {items}distances as materialized (
  select v.item_id, {statement.distance(near)} as distance from {source} where {statement.in_space(near)}
)
select item_id, distance from distances order by distance limit {statement.add(max_rows, "int")}
"""
    return text, statement.values


class ScanLimits(msgspec.Struct, frozen=True):
    """Limits of a lexical scan: items of the tenant (None: no limit), and of those in the scope.

    ``dominant``: the scope holds most items of all tenants.
    """

    dominant: bool
    tenant_items: int | None
    scope_items: int


def lexical_matches(
    scope: SearchScope,
    words: Sequence[str],
    *,
    match_all: bool,
    limits: ScanLimits,
    max_rows: int,
    conditions: Sequence[FilterCondition] | None,
) -> BoundSql:
    """The best ``max_rows`` items that have all (``match_all``) or any of ``words``, within ``limits``.

    The column ``full`` says that there may be more.
    """
    statement = SqlBuilder(scope)
    arguments = [statement.add(list(words), "text[]"), statement.add(match_all, "boolean"), *statement.span]
    arguments.append(statement.add(limits.dominant, "boolean"))
    arguments += [statement.add(count, "int") for count in (limits.tenant_items, limits.scope_items, max_rows)]
    matches = f"store_matches({', '.join(arguments)})"
    if conditions is None:
        return f'select item_id, "full", item_id is not null as passes from {matches}', statement.values
    text = f"""
select m.item_id, m."full", i.item_id is not null as passes from {matches} m
left join store_items i
  on i.tenant_id = {statement.tenant} and i.item_id = m.item_id and {statement.passing(conditions)}
order by m.rank desc nulls last, m.item_id desc
"""
    return text, statement.values


def word_shares(scope: SearchScope, words: Sequence[str], max_items: int) -> BoundSql:
    """For each of ``words``, the share of the tenant's items with any of them that have it, among ``max_items``."""
    statement = SqlBuilder(scope)
    text = f"""
select word, share from store_shares({statement.add(list(words), "text[]")}, {statement.add(max_items, "int")})
"""
    return text, statement.values


def items_page(scope: SearchScope, items: Sequence[UUID], limit: int, offset: int) -> BoundSql:
    """A page of those of ``items`` that have not expired, in the given order; ``rank`` counts from 1."""
    statement = SqlBuilder(scope)
    text = f"""
select {ITEM_COLUMNS}, f.rank from unnest({statement.add(list(items), "uuid[]")}) with ordinality as f(item_id, rank)
join store_items i on i.tenant_id = {statement.tenant} and i.item_id = f.item_id
where {NOT_EXPIRED}
order by f.rank limit {statement.add(limit, "int")} offset {statement.add(offset, "int")}
"""
    return text, statement.values


def newest_items(scope: SearchScope, conditions: Sequence[FilterCondition], limit: int, offset: int) -> BoundSql:
    """A page of the items that meet ``conditions``, the last updated first."""
    statement = SqlBuilder(scope)
    text = f"""
select {ITEM_COLUMNS} from store_items i
where {statement.within("i")} and {statement.passing(conditions)}
order by i.updated_at desc, i.item_id desc
limit {statement.add(limit, "int")} offset {statement.add(offset, "int")}
"""
    return text, statement.values


def count_vectors(scope: SearchScope, near: NeighbourQuery, max_rows: int) -> BoundSql:
    """Count the vectors in the scope up to ``max_rows``, and estimate those of all tenants."""
    statement = SqlBuilder(scope)
    table = f"store_vectors_{near.width}"
    text = f"""
select (
  select count(*) from (
    select from {table} v where {statement.in_space(near)} limit {statement.add(max_rows, "int")}) few
) as own, (select reltuples::bigint from pg_class where oid = '{table}'::regclass) as total
"""
    return text, statement.values


def sample_words(scope: SearchScope, share: float, min_items: int) -> BoundSql:
    """Count the items of the scope in a ``share`` of the table's pages, and the words that ``min_items`` of them have.

    Long items are skipped: reading them costs too much.
    """
    statement = SqlBuilder(scope)
    text = f"""
with picked as materialized (
  select i.words from store_items i tablesample system ({statement.add(100 * share, "float8")}) repeatable (1)
  where {statement.within("i")} and pg_column_size(i.words) < {TOAST_BYTES}
)
select null as word, count(*) as items from picked
union all
select w.word, count(*) from picked p, unnest(tsvector_to_array(p.words)) as w(word)
group by w.word having count(*) >= {statement.add(min_items, "int")}
"""
    return text, statement.values
