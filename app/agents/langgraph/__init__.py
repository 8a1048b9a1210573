"""LangGraph graphs as agents: they run in a worker process, which stores nothing itself.

- ``agent``: a graph as an agent
- ``session``: one run of a graph: its steps and output from the worker's reports
- ``bill``: the tokens of the models that a run calls
- ``kept_values``: the values that the worker has of threads between runs
- ``store``: the store for graphs
- ``tools``: tools of the agents file for graphs
- ``worker``: the worker process: start, restart, reports
- ``quarantine``: which runs are in it together, after its end
- ``wire``: frames and reports on the socket
"""
