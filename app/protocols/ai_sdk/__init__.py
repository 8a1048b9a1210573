"""Vercel's AI SDK, the UI message stream of ``useChat``: https://ai-sdk.dev/docs/ai-sdk-ui/stream-protocol

- ``controller``: HTTP routes
- ``inbound``: messages of a chat as input of a run, or as answers to its questions
- ``projection``: a run's events as chunks of one UI message
- ``structs``: wire shapes
"""
