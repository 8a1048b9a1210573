"""What executes runs.

- ``supervisor``: the live runs of this process
- ``queue``: accept, claim, renew, cancel, recover, retain
- ``execution``: a run under one owner: state, steps, journal, questions
- ``streams``: frames, feeds, their transport between processes, signals
- ``checkpoints``: stored states and their cache
- ``entries``: rows written in groups
- ``structs``, ``tables``: wire shapes and tables that the features share
"""
