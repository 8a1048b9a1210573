"""What can run, behind one port.

- ``a2a``: other agents as tools
- ``config``: the agents file
- ``functions``: agents that are Python functions with durable steps
- ``langgraph``: LangGraph graphs as agents
- ``mcp``: tools of MCP servers
- ``tool_loop``: the built-in agent: model, tools, repeat. It reaches neither network nor database
- ``tools``: tools of agents
- ``catalog``: build the agents of this process from the agents file
- ``function``: public API for authors of function agents
- ``open_calls``: find the unanswered tool calls in a state, which a later run may repeat
- ``port``: the agent port
- ``testing``: A fake run context for tests of agents, without a database
"""
