"""The parts of documents: first what agents use, then what clients use."""

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
    """``store`` holds the chunks, ``library`` is what agents search, ``agents`` ingest.

    ``garbage_collector`` deletes in the background. ``acting`` bounds what an agent reads to what its user may read.
    """

    def __init__(self, database: Database, store: StoreService, acting: ActingUser = tenant_itself) -> None:
        self._database = database
        self.store = store
        self._extraction = TextExtractor()
        self._search = DocumentSearch(database, store.indexing)
        self.library = LongTermMemory(store, self._search, acting)
        self.agents = [IngestAgent(database, store.indexing, self._extraction)]
        self.garbage_collector = DocumentGarbageCollector(database)

    def service(self, starter: IngestRunStarter) -> DocumentService:
        """Build the service of clients; ``starter`` starts the runs that ingest."""
        return DocumentService(self._database, starter, self._extraction, self._search, self.garbage_collector)
