"""The agents file.

- ``agents_file``: parse ``agents.toml``
- ``store_index``: the table ``[store]`` of the agents file
"""
