"""Threads, their states and their history.

- ``controller``: HTTP routes
- ``service``: use cases
- ``states``: state updates and imported histories
- ``subgraphs``: states of the subgraphs of hosted graphs
- ``graph_threads``: operations of hosted graphs on threads
- ``views``: wire views of rows, containment and paths in values
- ``queries``: SQL
- ``structs``: wire shapes
"""
