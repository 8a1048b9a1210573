"""Function agents: async functions that are replayed from the results of their completed steps.

- ``agent``: run an async function as an agent
- ``branches``: deterministic positions of a function's operations, identical on every replay
- ``context``: the context of a function agent
- ``conversion``: convert values between the author's types (structs, dataclasses, typed dictionaries, pydantic
  models) and JSON
- ``memory_access``: ``context.store`` and ``context.documents``
- ``messages``: the conversation as a function agent sees it
- ``model_calls``: ``context.model``
- ``session``: one execution of a function
- ``signature``: read a function agent's input and return types from its signature, at server start
- ``step_journal``: the journal of a function's completed operations, stored in the thread's state while the work is
  unfinished
- ``steps``: author-defined steps
- ``tool_calls``: ``context.tools``
- ``values``: the thread's values as a function agent sees them
"""
