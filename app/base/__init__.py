"""Primitives without knowledge of the domain.

- ``errors``: the tree of errors
- ``tasks``, ``containment``, ``offload``: background tasks, exceptions of user code, work off the event loop
- ``ttl_cache``: the bounded cache in memory whose entries expire
- ``single_flight``, ``wakeup``: callers that share the work for a value; wake-ups of polling loops
- ``page_bounds``: the limits of a page of a list
- ``fair_semaphore``: a semaphore shared fairly between parties
- ``validation_messages``: sentences about values of a wrong type
- ``json_scan``, ``byte_sizes``, ``ids``, ``clock``: JSON validation, sizes, identifiers, time
- ``json_schema``: schemas from outside, compiled without reading what they refer to elsewhere
- ``schema_visits``: bounds on the cost of checking a value by such a schema
- ``memory``, ``hide_modules``: memory of the process
- ``code_loader``: user code by name
- ``crash_points``: process deaths for tests
"""
