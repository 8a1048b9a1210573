"""Documents: uploaded, ingested by a run in the background, searched by passages.

* ``controller``, ``service``, ``queries``, ``tables``, ``structs``: routes, use cases, SQL, tables, wire shapes
* ``formats``, ``uploads``: accepted formats, receiving a file
* ``extraction``, ``extractor``: text of PDF and HTML, in a confined child process
* ``ingest``, ``text_window``, ``chunking``, ``sql``: the ingestion agent and its fenced statements
* ``search``: passages; long-term memory for agents
* ``garbage_collection``: deleted documents and abandoned uploads
"""
