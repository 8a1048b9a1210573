"""Export and erasure of the data of a tenant or a person.

- ``export``: export as JSON Lines
- ``erasure``: deletion while servers run
- ``queries``: SQL over all tenant tables
- ``structs``: the data subject
"""
