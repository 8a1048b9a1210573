"""Execution of one run.

- ``execution``: the run under one owner, and the context that its agent sees (``app.agents.port.RunContext``)
- ``run_writer``: commits what it does, then announces it
- ``ending``: how it ends
- ``run_state``: loaded thread, settings, input, writes not committed yet
- ``journal``: commits steps and ends in groups
- ``questions``: questions to people and their answers
- ``lease``, ``run_trace``: its lease and its spans
- ``sql``: statements
"""
