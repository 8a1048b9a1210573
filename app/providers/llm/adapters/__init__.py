"""Wire formats of vendors.

- ``anthropic``: adapter of Anthropic's Messages API
- ``anthropic_request``: build request bodies of Anthropic's Messages API
- ``content_blocks``: parse images and tool calls of messages into one form for all adapters
- ``http_client``: the HTTP client for all providers, with timeouts and size limits
- ``openai``: adapter of OpenAI's Chat Completions API, for OpenAI and compatible servers
- ``openai_request``: build request bodies of the Chat Completions API
- ``provider_errors``: map error responses of providers to ``ModelError`` classes
- ``sse``: incremental parser of server-sent events (WHATWG HTML, "Server-sent events", section on parsing)
- ``streaming_model``: base class of HTTP provider adapters
"""
