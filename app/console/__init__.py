"""The web console: a page that shows agents, conversations and operation, and speaks the public API alone.

- ``controller``: ``/`` (a page for browsers, a table of contents for other clients) and ``/console/…``
- ``assets``: the page's files, from memory: compressed, addressed by their content
- ``static/``: the page: ``index.html``, ``app.css``, ``js/`` (modules of all pages), ``pages/`` (one module a page,
  loaded when it is opened), ``vendor/`` (libraries, unchanged, with their licences)
"""
