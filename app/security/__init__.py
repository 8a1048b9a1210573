"""Who may do what, how much of it, and the record of it.

- ``access``: keys, tokens and principals
- ``audit``: the audit log
- ``idempotency``: idempotency keys and the responses stored under them
- ``limits``: rate limits, budgets and quotas
"""
