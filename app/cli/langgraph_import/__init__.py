"""``agent-service import langgraph-postgres``: what LangGraph's own PostgreSQL classes have stored, into a tenant.

- ``source``: read their tables
- ``sql``: the statements on their tables
- ``threads``: write the threads, and compare them with their rows
- ``items``: write the items of the store
"""
