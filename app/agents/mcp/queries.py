"""SQL of accepted lists of tools, and of accounts."""

NEWEST = """
select tools::text, version from mcp_tool_lists where agent = $1 and server = $2 order by version desc limit 1
"""

ACCEPT = """
insert into mcp_tool_lists (agent, server, version, digest, tools, accepted_by)
select $1, $2, $3::int + 1, $4, $5::text::jsonb, $6
on conflict do nothing
returning version
"""
"""Accept a list as the version after $3; no row if another process has accepted one since that was read."""

LOAD_ACCOUNT = "select sealed from mcp_accounts where tenant_id = $1 and server = $2 and user_id = $3"

LOCK_ACCOUNT = f"{LOAD_ACCOUNT} for update"

MAKE_ACCOUNT = """
insert into mcp_accounts (tenant_id, server, user_id, sealed) values ($1, $2, $3, '')
on conflict (tenant_id, server, user_id) do update set server = excluded.server
returning sealed
"""
"""Lock an account's row, which is made if there is none."""

SAVE_ACCOUNT = """
update mcp_accounts set sealed = $4, state = $5, updated_at = now()
where tenant_id = $1 and server = $2 and user_id = $3
"""

FIND_ACCOUNT = "select tenant_id, server, user_id from mcp_accounts where state = $1"
