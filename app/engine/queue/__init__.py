"""The run queue.

- ``claims``: accept, claim and release runs; admission by budget and quota
- ``run_claimer``: claims on notification and by polling; metrics of the queue
- ``owned_runs``: runs of this process, their leases, enforcement of cancels
- ``memory_gate``: admission of large requests
- ``quarantine``: runs that may have killed their process
- ``cancels``: cancel and roll back
- ``retention``: delete what has expired
- ``sql``: statements
"""
