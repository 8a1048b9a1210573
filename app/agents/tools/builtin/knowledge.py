"""Search the documents that the caller may read; return passages with citations."""

import re
from typing import Any

from app.agents.tools.function_tool import FunctionTool, tool
from app.agents.tools.port import LongTerm, Passage, ToolContext, ToolResult
from app.base.errors import StartError

NAME = "knowledge"
MAX_PASSAGES = 20
USUAL = 5
MAX_QUERY_LENGTH = 8000
_COLLECTION = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,49}")


def names_knowledge(name: str) -> bool:
    """Whether a ``tools`` entry is this tool: ``knowledge``, or ``knowledge:COLLECTION``."""
    return name.partition(":")[0] == NAME


def knowledge_tool(name: str, store: LongTerm | None) -> FunctionTool:
    """Build the tool ``name`` on ``store`` (None to inspect agents only). Raises ``StartError``.

    A tool bound to a collection is called ``knowledge_COLLECTION``, so that an agent can have several.
    """
    _, bound, collection = name.partition(":")
    if bound and not _COLLECTION.fullmatch(collection):
        raise StartError(f"tool {name!r}: after the colon write the name of a collection, of letters, digits, - and _")

    @tool(name=f"{NAME}_{collection}" if bound else NAME, tool_class="read_only", timeout=60)
    async def knowledge(context: ToolContext, query: str, limit: int = USUAL) -> ToolResult:
        """Look up what the documents say. Cite what you use by its number and title, as in [1] (Title, page 3).

        Args:
            query: what to look for, in whole words: a question or a few key terms
            limit: how many passages to give, up to 20
        """
        if store is None:
            raise RuntimeError("no documents are available here")
        if not query.strip() or len(query) > MAX_QUERY_LENGTH:
            raise ValueError(f"give a query of 1 to {MAX_QUERY_LENGTH} characters")
        max_passages = min(max(limit, 1), MAX_PASSAGES)
        found = await store.passages(context.caller, query, collection, None, max_passages)
        shown = "\n\n".join(_shown(number, passage) for number, passage in enumerate(found, 1))
        citations = [_citation(number, passage) for number, passage in enumerate(found, 1)]
        return ToolResult(content=shown or "No document matches the query.", artifact={"citations": citations})

    return FunctionTool(knowledge)


def _shown(number: int, passage: Passage) -> str:
    page = "" if passage.page is None else f", page {passage.page}"
    return (
        f"[{number}] {passage.title or 'Untitled'}{page} (document {passage.document_id}, chunk {passage.chunk}, "
        f"characters {passage.start}-{passage.end})\n{passage.text}"
    )


def _citation(number: int, passage: Passage) -> dict[str, Any]:
    """Return the citation stored in the tool message's artifact, for clients."""
    return {
        "number": number,
        "document_id": str(passage.document_id),
        "title": passage.title,
        "collection": passage.collection,
        "chunk": passage.chunk,
        "start": passage.start,
        "end": passage.end,
        "page": passage.page,
        "score": passage.score,
    }
