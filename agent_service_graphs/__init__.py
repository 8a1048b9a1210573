"""Worker that runs a project's LangGraph graphs, in the project's own Python environment.

It uses the standard library and the project's ``langgraph`` alone. The engine starts it, sends runs over a socket and
stores what it reports; the worker itself stores nothing.

- ``main``: the process: requests in, reports out
- ``wire``: frames on the socket
- ``loading``: import graphs, call their factories
- ``describing``: schemas, drawing and nodes of a graph
- ``runs``: one run of a graph
- ``state``: a thread's state outside of runs: values written to it, states of subgraphs
- ``imports``: checkpoints that LangGraph's PostgreSQL checkpointer has stored
- ``invocations``: which of a task's subgraphs is which, over its attempts
- ``saver``: the checkpointer of a run
- ``checkpoints``: a thread's checkpoints in memory
- ``threads``: older checkpoints, and other threads
- ``stored_values``: a thread's values as the engine stores them
- ``documents``: a thread's checkpoint as values of the engine's state
- ``projection``: values as JSON
- ``stream``: stream output as reports
- ``transformers``: stream transformers of a graph
- ``model_calls``: the models that a run calls, for its bill
- ``tools``: tools of the agents file, for graphs
- ``store``: the engine's store as LangGraph's ``BaseStore``
- ``tool_classes``: tools of the graph's own code that declare a class
- ``stalls``: find the code that blocks the event loop
"""
