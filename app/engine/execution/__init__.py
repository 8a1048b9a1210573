"""Execution of one run.

- ``execution``: the run under one owner; implements the agents' ``RunContext``
- ``run_state``: loaded thread, settings, input, writes not committed yet
- ``journal``: commits steps and ends in groups
- ``questions``: questions to people and their answers
- ``lease``, ``run_trace``: its lease and its spans
- ``sql``: statements
"""
