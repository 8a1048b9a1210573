"""Statements on the tables of ``langgraph-checkpoint-postgres`` and its store."""

TABLES = "select coalesce(to_regclass('checkpoints')::text, ''), coalesce(to_regclass('store')::text, '')"
"""Which of the tables exist on the search path."""

COLUMNS = """
select count(*) from information_schema.columns
where table_name = 'checkpoints' and column_name = 'checkpoint_ns' and table_schema = any(current_schemas(false))
"""

THREADS = "select distinct thread_id from checkpoints where thread_id > $1 order by thread_id limit $2"
COUNT_THREADS = "select count(distinct thread_id) from checkpoints"

CHECKPOINTS = """
select checkpoint_id, parent_checkpoint_id, checkpoint::text as checkpoint, metadata::text as metadata
from checkpoints where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id > $3 order by checkpoint_id limit $4
"""
"""Checkpoint ids are UUIDs of version 6 as text, which are in the order of time."""

CHECKPOINT = """
select checkpoint_id, parent_checkpoint_id, checkpoint::text as checkpoint, metadata::text as metadata
from checkpoints where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = $3
"""

SUBGRAPHS = """
select distinct on (checkpoint_ns, metadata -> 'parents' ->> '')
  checkpoint_ns, checkpoint_id, metadata -> 'parents' ->> '' as root
from checkpoints where thread_id = $1 and checkpoint_ns <> ''
order by checkpoint_ns, metadata -> 'parents' ->> '', checkpoint_id desc
"""
"""The newest checkpoint of each subgraph under each of the graph's."""

BLOBS = """
select b.channel, b.type, b.blob from jsonb_each_text($3::jsonb) v
join checkpoint_blobs b on b.channel = v.key and b.version = v.value
where b.thread_id = $1 and b.checkpoint_ns = $2
"""

WRITES = """
select task_id, task_path, idx, channel, type, blob from checkpoint_writes
where thread_id = $1 and checkpoint_ns = $2 and checkpoint_id = $3 order by task_path, task_id, idx
"""

ITEMS = """
select prefix, key, value::text as value, created_at, updated_at, expires_at, ttl_minutes from store
where (prefix, key) > ($1, $2) order by prefix, key limit $3
"""
COUNT_ITEMS = "select count(*) from store"

FOUND = """
select namespace, key, value::text as value from store_items
where tenant_id = $1 and (namespace, key) in (select * from unnest($2::text[], $3::text[]))
"""
"""Imported items, in the tenant's own table."""
