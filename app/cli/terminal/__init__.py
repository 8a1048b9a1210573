"""What the verbs share: arguments, output, progress, files.

- ``data_files``: files that commands read and write
- ``output``: terminal output
- ``parser``: argument parsers with uniform help, which report wrong usage in one line
- ``progress``: progress line of a long command
- ``unexpected_errors``: report unexpected errors on the command line
"""
