"""The Model Context Protocol, as a server: https://modelcontextprotocol.io/specification/2026-07-28

- ``controller``: HTTP routes
- ``sign_in``: where browsers come back to after a sign-in at another server
- ``resource_metadata``: how clients learn of the issuer of tokens
- ``server``: serve messages of both revisions over a surface
- ``revisions``: tell the revisions apart; headers and capabilities
- ``surface``: the port between the wire and what is served
- ``responses``: JSON, and server-sent events of one call
- ``sealing``: what clients keep for the server
- ``errors``: JSON-RPC errors
- ``structs``: wire shapes
- ``agent_surface``: what ``/mcp`` and ``/mcp/{assistant}`` serve
- ``admin``: what ``/mcp/admin`` serves
- ``resources``: threads, documents and store items
- ``documentation``: the service's own pages
- ``agents``: agents as tools, their runs as calls
- ``tasks``: runs as tasks
- ``questions``: questions of a run as forms of a client
- ``results``: a run as the result of a tool
"""
