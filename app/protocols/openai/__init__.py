"""OpenAI's API over runs: https://platform.openai.com/docs/api-reference

- ``controller``: HTTP routes of chat completions and models
- ``responses``: Responses and Conversations
- ``chat``: projection of a run onto chunks of a chat completion, or onto a whole one
- ``inbound``: requests as input of a run
- ``chats``: where the thread of a chat UI goes on
- ``tasks``: requests that chat UIs make for themselves
- ``tools``: tools of a request and the choice among them
- ``endings``: why an answer ended, and the errors of failed runs
- ``past``: the events of a run, though its event log may be gone
- ``errors``: the shape of errors
- ``structs``: wire shapes
"""
