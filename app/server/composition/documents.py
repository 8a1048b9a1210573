"""The rooms of documents, connected in the order in which it can be: what agents see first, then what clients do."""

from app.features.documents.extraction import TextExtractor
from app.features.documents.garbage_collection import DocumentGarbageCollector
from app.features.documents.ingest import INGEST, IngestAgent
from app.features.documents.search import DocumentSearch, LongTermMemory
from app.features.documents.service import DocumentService, IngestRunStarter
from app.features.store.service import StoreService
from app.infra.db.engine import Database
from app.security.access.structs import ActingUser, tenant_itself

OWN = (INGEST,)
"""Agents that are the service's own."""


class DocumentServices:
    """``store`` holds their chunks, ``library`` is what agents see, ``agents`` are the service's own.

    ``removing`` works in the background. ``acting`` knows how far those reach for whom agents work.
    """

    def __init__(self, database: Database, store: StoreService, acting: ActingUser = tenant_itself) -> None:
        self._database = database
        self.store = store
        self._extraction = TextExtractor()
        self._finding = DocumentSearch(database, store.indexing)
        self.library = LongTermMemory(store, self._finding, acting)
        self.agents = [IngestAgent(database, store.indexing, self._extraction)]
        self.removing = DocumentGarbageCollector(database)

    def service(self, beginning: IngestRunStarter) -> DocumentService:
        """What clients do with documents, whose runs ``beginning`` makes."""
        return DocumentService(self._database, beginning, self._extraction, self._finding, self.removing)
