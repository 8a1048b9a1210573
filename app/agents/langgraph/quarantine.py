"""Decides which runs are in the worker process together, after runs that may have ended an earlier one.

The rules of the engine for its own processes (decision 0012), in small. A run under which the worker ended is a suspect
until it commits something or survives for a while. Suspects begin before other runs: on their second attempt in groups,
later alone. A run fails only if the process has ended with no other run in it, so none fails because of its neighbours.
"""

import asyncio

MAX_ATTEMPTS = 3
"""Attempts without a committed step, the last of them alone, after which a run fails."""
MAX_ENDS = 25
"""Ends of the worker in all, after which a run fails that commits a step before each."""
GROUP = 8
"""Suspects on their second attempt that are unproven at once."""
PROOF_SECONDS = (1.0, 5.0, 25.0, 60.0)
"""How long a suspect survives to be proven, by attempt."""
CLOSED_SECONDS = 15.0
"""How long a suspect waits at most for a process without other runs, while those wait for it."""


class RunAttempts:
    """Ends of the worker under one run: since its last committed step, and in all."""

    def __init__(self) -> None:
        self.recent = 0
        self.total = 0
        self.alone = False
        """Whether no other run was in the worker when it ended the last time."""

    def progressed(self) -> None:
        """Forget the ends of the worker before a commit, but not that there were some."""
        self.recent = min(self.recent, 1)

    def worker_ended(self, *, alone: bool) -> None:
        """Record an end of the worker."""
        self.alone = alone
        self.recent += 1
        self.total += 1

    @property
    def exhausted(self) -> bool:
        """Whether the run fails instead of beginning again."""
        return (self.alone and self.recent >= MAX_ATTEMPTS) or self.total >= MAX_ENDS


class AdmittedRun:
    """A run in the worker. ``suspect``: it has not been proven harmless since the worker ended under it."""

    def __init__(self, attempts: RunAttempts) -> None:
        self.attempts = attempts
        self.suspect = attempts.recent > 0
        self.harmless = False
        """Whether it was a suspect and is proven."""
        self.begun = False
        self.proof: asyncio.TimerHandle | None = None


class _Waiting:
    def __init__(self, attempts: RunAttempts) -> None:
        self.attempts = attempts
        self.overdue = False
        """Whether it has waited for ``CLOSED_SECONDS``."""
        self.admitted: asyncio.Future[AdmittedRun] = asyncio.get_running_loop().create_future()


class WorkerQuarantine:
    """Admits runs to the worker, suspects first."""

    def __init__(self) -> None:
        self._inside: set[AdmittedRun] = set()
        self._waiting: list[_Waiting] = []

    async def enter(self, attempts: RunAttempts) -> AdmittedRun:
        """Wait until the run with these ``attempts`` may begin. ``begin`` and ``leave`` follow."""
        if not attempts.recent and not self._waiting and not self._suspects():
            admitted = AdmittedRun(attempts)
            self._inside.add(admitted)
            return admitted
        waiting = _Waiting(attempts)
        self._waiting.append(waiting)
        self._waiting.sort(key=lambda one: (one.attempts.recent == 0, one.attempts.recent))  # stable: the rest in order
        timer = asyncio.get_running_loop().call_later(CLOSED_SECONDS, self._overdue, waiting)
        self._admit()
        try:
            return await waiting.admitted
        except asyncio.CancelledError:
            if waiting in self._waiting:
                self._waiting.remove(waiting)
            elif not waiting.admitted.cancelled():
                self._inside.discard(waiting.admitted.result())
            self._admit()
            raise
        finally:
            timer.cancel()

    def begin(self, admitted: AdmittedRun) -> None:
        """Record that the worker runs the run from now on: a suspect is harmless if it survives for a while."""
        admitted.begun = True
        if admitted.suspect:
            seconds = PROOF_SECONDS[min(admitted.attempts.recent, len(PROOF_SECONDS)) - 1]
            admitted.proof = asyncio.get_running_loop().call_later(seconds, self._prove, admitted)

    def leave(self, admitted: AdmittedRun) -> None:
        """Record that the run is not in the worker any more."""
        if admitted.proof is not None:
            admitted.proof.cancel()
        self._inside.discard(admitted)
        self._admit()

    def progressed(self, admitted: AdmittedRun) -> None:
        """Record that the run has committed a step, or the writes of a node, which proves it harmless."""
        admitted.attempts.progressed()
        self._prove(admitted)

    def worker_ended(self) -> None:
        """Make the runs that the worker ran suspects of its end."""
        ended = {one for one in self._inside if one.begun}
        self._inside -= ended
        for one in ended:
            if one.proof is not None:
                one.proof.cancel()
            one.attempts.worker_ended(alone=len(ended) == 1)
        self._admit()

    def _suspects(self) -> list[AdmittedRun]:
        return [one for one in self._inside if one.suspect]

    def _admit(self) -> None:
        for waiting in list(self._waiting):
            if waiting.admitted.done() or not self._has_room_for(waiting):
                break
            self._waiting.remove(waiting)
            self._inside.add(admitted := AdmittedRun(waiting.attempts))
            waiting.admitted.set_result(admitted)

    def _has_room_for(self, waiting: _Waiting) -> bool:
        suspects, attempt = self._suspects(), waiting.attempts.recent
        if not attempt:
            return not suspects
        if suspects:
            return attempt == 1 and len(suspects) < GROUP and all(one.attempts.recent == 1 for one in suspects)
        return waiting.overdue or not self._inside or (attempt == 1 and all(one.harmless for one in self._inside))

    def _overdue(self, waiting: _Waiting) -> None:
        waiting.overdue = True
        self._admit()

    def _prove(self, admitted: AdmittedRun) -> None:
        if admitted.suspect:
            admitted.suspect, admitted.harmless = False, True
            if admitted.proof is not None:
                admitted.proof.cancel()
            self._admit()
