"""OpenAI's Responses and Conversations over runs and threads: https://platform.openai.com/docs/api-reference/responses

A response is a run, a conversation is a thread; both are found by their ids, whatever made them.

- ``compaction``: a conversation in short, as one item
- ``controller``: HTTP routes of responses
- ``conversations``: HTTP routes of conversations and their items
- ``inbound``: input items as messages of a run, or as answers to its questions
- ``items``: messages of a thread as items
- ``plan``: where a request starts: a new thread, an earlier response, a conversation, open questions
- ``projection``: a run's events as streaming events, and as the response itself
- ``response``: the response object, ids
- ``structs``: wire shapes
- ``websocket``: responses over WebSocket connections
"""
