"""The rooms of documents, connected in the order in which it can be: what agents see first, then what clients do."""

from app.access.structs import Acting, tenant_itself
from app.db.engine import Database
from app.documents.beginning import Beginning
from app.documents.extraction import Extraction
from app.documents.finding import Finding
from app.documents.ingest import INGEST, Ingest
from app.documents.library import Library
from app.documents.removing import Removing
from app.documents.service import DocumentService
from app.store.service import StoreService

OWN = (INGEST,)
"""Agents that are the service's own."""


class Building:
    """``store`` holds their chunks, ``library`` is what agents see, ``agents`` are the service's own.

    ``removing`` works in the background. ``acting`` knows how far those reach for whom agents work.
    """

    def __init__(self, database: Database, store: StoreService, acting: Acting = tenant_itself) -> None:
        self._database = database
        self.store = store
        self._extraction = Extraction()
        self._finding = Finding(database, store.indexing)
        self.library = Library(store, self._finding, acting)
        self.agents = [Ingest(database, store.indexing, self._extraction)]
        self.removing = Removing(database)

    def service(self, beginning: Beginning) -> DocumentService:
        """What clients do with documents, whose runs ``beginning`` makes."""
        return DocumentService(self._database, beginning, self._extraction, self._finding, self.removing)
