"""How a document's run begins: accepted with the document in one transaction, launched when that is committed."""

import contextlib
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import msgspec

from app.access.structs import Principal
from app.assistants.service import AssistantService
from app.db.session import Writer
from app.documents.ingest import DOCUMENT_ID, INGEST
from app.runs.claims import Claims
from app.runs.creation import Asker, Creation
from app.runs.entries import Accept, Claimed
from app.runs.service import RunService
from app.runs.structs import RunCreate, RunRequest, StreamMode

MODES: list[StreamMode] = ["custom", "updates", "values"]


class Beginning:
    """Makes runs of the agent that ingests."""

    def __init__(self, claims: Claims, creation: Creation, runs: RunService, assistants: AssistantService) -> None:
        self._claims = claims
        self._creation = creation
        self._runs = runs
        self._assistants = assistants

    @contextlib.asynccontextmanager
    async def admitted(
        self, principal: Principal, document_id: UUID, metadata: dict[str, Any]
    ) -> AsyncIterator[Accept]:
        """The run to accept in the block, if there is room for one. Raises ``Limited``, ``Unavailable``."""
        self._runs.check_open()
        body = RunCreate(
            assistant_id=INGEST,
            input={DOCUMENT_ID: str(document_id)},
            metadata={**metadata, DOCUMENT_ID: str(document_id)},
            stream_mode=list(MODES),
        )
        asked = await self._creation.entry(principal.tenant_id, None, body, Asker(internal=True))
        async with self._runs.admission.admitted([asked], principal.limits) as (entry,):
            yield entry

    def of(self, entry: Accept, document_id: UUID) -> Accept:
        """The same for another document."""
        request = msgspec.json.decode(entry.request, type=RunRequest)
        request.input = {DOCUMENT_ID: str(document_id)}
        metadata = {**msgspec.json.decode(entry.metadata), DOCUMENT_ID: str(document_id)}
        encode = msgspec.json.encode
        return msgspec.structs.replace(entry, request=encode(request), metadata=encode(metadata))

    async def accept(self, session: Writer, entry: Accept) -> Claimed:
        """Accept the run in a transaction of the caller's."""
        await self._assistants.add_own(session, entry.tenant_id, INGEST)
        (claimed,) = await self._claims.accept_on(await session.driver(), [entry])
        return claimed

    def launch(self, entry: Accept, claimed: Claimed | None) -> None:
        """What was accepted is committed: run it. None: nothing runs after all."""
        if claimed is None:
            self._runs.admission.release([entry])
        else:
            self._runs.launch(entry, claimed)

    async def stop(self, principal: Principal, run_id: UUID) -> None:
        """Cancel a run, if it has not ended."""
        await self._runs.stop(principal, run_id)
