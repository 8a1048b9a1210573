"""Tools of agents.

- ``builtin``: tools that come with the service
- ``content``: results of tools in MCP's form as content of messages
- ``docstring``: parse docstrings in Google, NumPy and Sphinx style
- ``function_tool``: wrap a typed Python function as a tool
- ``json_types``: check which Python types have a JSON form, for errors about annotations of tools and function agents
- ``port``: the tool port
- ``registry``: resolve tool names
- ``remote``: what tools at other systems share: errors, pauses, names, references to variables
- ``worker_threads``: run sync tools in threads, so that they never block the event loop
"""
