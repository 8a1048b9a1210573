"""What the API page shows in addition to types: the meaning of each field and parameter, and an example of each body.

- ``fields``: meanings by name, and of those that a struct uses in its own way
- ``examples``: bodies and ids to try, in an order in which each works as it stands
- ``page``: put both into the OpenAPI document
"""
