"""LangGraph's streaming protocol, version 2: commands, and events of a thread over server-sent events or WebSocket.

Source: the package ``langchain-protocol`` (MIT); https://docs.langchain.com/langgraph-platform/

- ``controller``: HTTP routes
- ``commands``: what commands do
- ``threads``: the events of all runs of a thread, one after the other
- ``projection``: a run's events as events of the protocol
- ``content``: messages as content blocks, and tool calls
- ``websocket``: WebSocket connections, as clients of these routes
- ``channels``: what a client subscribes to
- ``structs``: wire shapes
"""
