"""What the API names: one package per feature.

- ``access``: HTTP side of access: authentication, rate limits, idempotency
- ``assistants``: assistants: configured agents
- ``crons``: runs on a schedule
- ``data_rights``: export and erasure of a tenant's or a person's data
- ``documents``: documents: uploaded, chunked, found and cited
- ``runs``: runs as clients see them
- ``store``: long-term memory: items, searched by words and vectors
- ``system``: health, readiness, information and metrics
- ``threads``: threads and their states
- ``webhooks``: calls to clients when runs have ended
"""
