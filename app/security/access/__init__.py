"""Authentication and authorization.

- ``service``, ``api_key_cache``: API keys; ``token_auth``, ``jwks``: tokens of an issuer
- ``custom_auth_handlers``: the operator's own handlers; ``structs``: principals, scopes, audit events
- ``langgraph_sdk_internals``: everything that leans on private parts of langgraph-sdk
- ``queries``: SQL of API keys and tenants
- ``tables``: tenants and their API keys
"""
