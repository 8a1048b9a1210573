"""The agents file.

- ``agents_file``: parse ``agents.toml``
- ``langgraph_file``: parse ``langgraph.json``
- ``store_index``: the table ``[store]`` of the agents file
"""
