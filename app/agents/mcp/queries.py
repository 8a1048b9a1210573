"""SQL of accepted lists of tools."""

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
