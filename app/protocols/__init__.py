"""The same runs on other wires: each protocol is an inbound map, a projection and a controller.

- ``parts``: the output of a run, piece by piece: the model that projections read
- ``projection``: project a run once for all readers of a protocol in this process
- ``meanings``: what each protocol sends for each state and piece of a run: a table
- ``gateway``: what every controller works with
- ``states``: states of a run
- ``a2a``: A2A, the protocol of agents that call agents
- ``threads``: find a thread again by another protocol's id, and what it does not know yet
- ``forks``: where a branch of a thread begins
- ``files``: files in the content of messages
- ``live_runs``: find and stop the run of a thread that is in progress
- ``questions``: what the questions of a run ask, and the answers that decide them
- ``ag_ui``: AG-UI, and CopilotKit's runtime
- ``ai_sdk``: Vercel's AI SDK, the UI message stream of ``useChat``
- ``langgraph_v2``: LangGraph's protocol v2, below ``/threads/{thread_id}``
- ``mcp``: the Model Context Protocol, agents as tools
- ``openai``: OpenAI's Chat Completions, Responses and Conversations
- ``websockets``: WebSocket connections as clients of the HTTP routes
"""
