"""Primitives without knowledge of the domain.

- ``errors``: the tree of errors
- ``tasks``, ``containment``, ``offload``: background tasks, exceptions of user code, work off the event loop
- ``ttl_cache``: the bounded cache in memory whose entries expire
- ``fair_semaphore``: a semaphore shared fairly between parties
- ``json_scan``, ``byte_sizes``, ``ids``, ``clock``: JSON validation, sizes, identifiers, time
- ``memory``, ``hide_modules``: memory of the process
- ``code_loader``: user code by name
- ``crash_points``: process deaths for tests
"""
