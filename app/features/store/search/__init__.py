"""Search of items.

* ``filters``: filters compiled to SQL
* ``hybrid_search``: rankings by vectors, reciprocal rank fusion, pages
* ``lexical_ranking``: the ranking by words
* ``statistics``: cached counts that choose a scan
* ``sql``: statements and planner settings
"""
