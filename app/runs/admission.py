"""Whether there is room for a run: what its tenant may use is reserved before it is accepted."""

import contextlib
from collections.abc import AsyncIterator, Sequence
from uuid import UUID

import msgspec

from app.limits.budgets import Account, Budgets
from app.limits.storage import StorageQuota
from app.limits.structs import Own, Reserved
from app.runs.entries import Accept, Claimed
from app.runs.frames import with_member
from app.runs.structs import RunRequest


class Admission:
    """Reserves for runs, and gives back what was reserved for those that were not accepted."""

    def __init__(self, budgets: Budgets, quota: StorageQuota) -> None:
        self._budgets = budgets
        self._quota = quota

    async def count_cron(self, tenant_id: UUID) -> float:
        """Count a run that a cron of the tenant starts: 0, or the seconds to wait where it has none left now."""
        return await self._budgets.count_cron(tenant_id)

    @contextlib.asynccontextmanager
    async def admitted(self, entries: Sequence[Accept], own: Own | None) -> AsyncIterator[list[Accept]]:
        """The entries (of one tenant) to accept in the block, with what is reserved for them in their requests.

        ``own`` are the tenant's limits, looked up if nobody knows them. Raises ``Limited``, and nothing is reserved.
        """
        if not entries:
            yield []
            return
        tenant_id = entries[0].tenant_id
        self._quota.check(tenant_id)  # crons have passed no door before
        limits = own if own is not None else await self._budgets.own(tenant_id)
        admitted: list[Accept] = []
        async with self._budgets.room(tenant_id, limits, len(entries)):
            try:
                for entry in entries:
                    reserved = await self._budgets.reserve(tenant_id, limits, entry.agent)
                    admitted.append(entry if reserved is None else _with(entry, reserved))
                yield admitted
            except BaseException:
                self.release(admitted)
                raise

    def release(self, entries: Sequence[Accept]) -> None:
        """Nothing runs for ``entries`` after all."""
        for entry in entries:
            if entry.reserved is not None:
                self._budgets.release(entry.tenant_id, entry.reserved)


def _with(entry: Accept, reserved: Reserved) -> Accept:
    request = with_member(entry.request, "reserved", msgspec.json.encode(reserved))
    return msgspec.structs.replace(entry, request=request, reserved=reserved)


def account_of(budgets: Budgets, claimed: Claimed, request: RunRequest) -> Account:
    """What a run spends here. Whoever had it before has given back what it had not used."""
    reserved = None if request.reserved is msgspec.UNSET else request.reserved
    return Account(budgets, claimed.tenant_id, reserved, continued=claimed.epoch > 1)
