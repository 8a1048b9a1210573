"""The command ``agent-service``: one verb a file.

- ``doctor``: ``agent-service doctor``: checks a deployment
- ``langgraph_import``: LangGraph's PostgreSQL tables, read and written as ours
- ``terminal``: what the verbs share: arguments, output, progress, files
- ``agent_checks``: build the parts of an agents file as a server does at start-up, to validate them
- ``agents``: ``agent-service agents``
- ``chat``: ``agent-service chat``
- ``child_process``: run start-up work in a forked child process, so that its imports do not use the parent's memory
- ``data``: ``agent-service data``
- ``database_access``: the database of the server, for the verbs that read or change it
- ``dev``: ``agent-service dev``
- ``health``: ``python -m app.cli.health``
- ``imports``: ``agent-service import``
- ``init``: ``agent-service init``
- ``keys``: ``agent-service keys``
- ``main``: the command ``agent-service``
- ``mcp``: ``agent-service mcp``
- ``mcp_config``: ``agent-service mcp config``: what MCP clients are to read
- ``mcp_sign_in``: ``agent-service mcp sign-in``: accounts at MCP servers, with a browser
- ``migrate``: ``agent-service migrate``
- ``new``: ``agent-service new``
- ``runs``: ``agent-service runs``
- ``serve``: ``agent-service serve``
- ``store``: ``agent-service store``
- ``tenants``: ``agent-service tenants``
- ``version``: ``agent-service version``
"""
