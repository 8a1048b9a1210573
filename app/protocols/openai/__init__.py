"""OpenAI's API over runs: https://platform.openai.com/docs/api-reference

- ``controller``: HTTP routes
- ``chat``: projection of a run onto chunks of a chat completion, or onto a whole one
- ``inbound``: requests as input of a run
- ``tools``: tools of a request and the choice among them
- ``errors``: the shape of errors
- ``structs``: wire shapes
"""
