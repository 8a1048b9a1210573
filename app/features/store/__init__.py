"""Long-term memory: items (JSON values by namespace and key), with search by field, by meaning and by words.

* ``controller``, ``service``, ``queries``, ``tables``, ``structs``: routes, use cases, SQL, tables, wire shapes
* ``validation``: namespaces, keys and items
* ``vectors``: vectors as statements take them, in pgvector's binary format
* ``agent_store``: the store for agents
* ``operations``: the store for hosted graphs
* ``index``: index versions, indexed fields, embedding of items, background maintenance
* ``search``: filters, rankings by vectors and by words, their fusion
* ``bulk``: import and export as JSON lines
"""
