"""Export and erasure of the data of a tenant or a person.

- ``export.py``: export as JSON Lines
- ``erasure.py``: deletion while servers run
- ``queries.py``: SQL over all tenant tables
- ``structs.py``: the data subject
"""
