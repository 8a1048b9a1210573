"""Built-in tools.

- ``calculator``: evaluate arithmetic by interpreting the syntax tree
- ``clock``: return the current date and time
- ``knowledge``: search the documents that the caller may read
- ``memory``: long-term memory tool
- ``notes``: notes in the thread's values, committed with the step that wrote them
"""
