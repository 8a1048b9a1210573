"""What the verbs share: arguments, output, progress, files.

- ``conversation``: print a run as it streams
- ``data_files``: files that commands read and write
- ``output``: terminal output
- ``parser``: argument parsers with uniform help, which report wrong usage in one line
- ``progress``: progress line of a long command
- ``questions``: ask a person the open questions of a run
- ``server_client``: HTTP client of a running server
- ``unexpected_errors``: report unexpected errors on the command line
"""
