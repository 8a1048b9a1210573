"""LangGraph graphs as agents: they run in worker processes, which store nothing themselves.

- ``agent``: a graph as an agent
- ``session``: one run of a graph: its steps and output from the worker's reports
- ``worker``: the worker process: start, restart, reports
- ``wire``: frames and reports on the socket
"""
