"""HTTP without features.

- ``request_context``, ``host_and_cors``, ``request_bodies``, ``response_deadline``, ``large_answers``: middleware
- ``event_streams``, ``open_streams``, ``response_detacher``: responses that stay open
- ``json_decoding``, ``query_params``, ``uploads``, ``client_address``, ``server_address``: input, and who sent it where
- ``problems``, ``openapi``: error responses, and the OpenAPI document with its page
- ``litestar_internals``: faster requests and responses
"""
