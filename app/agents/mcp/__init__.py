"""Tools of MCP servers (Model Context Protocol, revisions 2026-07-28 and 2025-11-25), with the official SDK.

The SDK is imported when the first server is connected; nothing else of the program needs it.

- ``spec``: a server as the agents file describes it, and the names of its tools
- ``servers``: all servers of the agents file: connect, list tools, connect again
- ``pins``: accepted lists of tools, and how a server's list differs
- ``pin_store``, ``queries``, ``tables``: those lists in the database
- ``port``: what connections do, for code that may not import the SDK
- ``source``: the tools of one server that one agent uses
- ``tool``: one tool of a server as a tool of an agent
- ``resources``: tools of our own to list and read a server's resources
- ``rounds``, ``elicitation``: one call to its end: questions to people, and tasks that outlive a request
- ``connection``: a connection to a server, held by a task of its own
- ``accounts``, ``account_store``: whose sign-ins are kept, and where
- ``sign_in``: sign in at a server (OAuth 2.1), and send requests with the tokens
- ``oauth_internals``: private parts of the SDK's OAuth client
- ``http_transport``: HTTP requests of the SDK, to checked addresses only
- ``stdio_transport``: a server as a child process
"""
