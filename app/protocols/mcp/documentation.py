"""The service's documentation as resources: Markdown pages, and ``llms.txt``, their index (https://llmstxt.org)."""

import asyncio
import functools
from pathlib import Path
from typing import Any

from app.base.errors import NotFound

SCHEME = "docs://"
INDEX = f"{SCHEME}llms.txt"
SECTIONS = ("tutorial", "how-to", "reference", "explanation", "operations")

_PACKAGE = Path(__file__).parents[2]
FOLDERS = (_PACKAGE / "documentation", _PACKAGE.parent / "docs")
"""Where an installation has it, and where a checkout has it."""


class Documentation:
    """The pages of ``folder``; by default those that came with this program, if any did."""

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or next((one for one in FOLDERS if one.is_dir()), None)

    @functools.cached_property
    def pages(self) -> dict[str, Path]:
        """The pages by URI."""
        folder = self._folder
        if folder is None:
            return {}
        found = [page for section in SECTIONS for page in sorted((folder / section).glob("*.md"))]
        return {SCHEME + page.relative_to(folder).as_posix(): page for page in found}

    async def listed(self) -> list[dict[str, Any]]:
        """Return the index and the pages as resources."""
        return await asyncio.to_thread(self._listed)

    def _listed(self) -> list[dict[str, Any]]:
        index = {"uri": INDEX, "name": "llms.txt", "title": "Index of the documentation", "mimeType": "text/plain"}
        pages = [
            {"uri": uri, "name": uri.removeprefix(SCHEME), "title": _title(page), "mimeType": "text/markdown"}
            for uri, page in self.pages.items()
        ]
        return [index, *pages] if pages else []

    async def read(self, uri: str) -> list[dict[str, Any]]:
        """Return a page, or the index. Raises ``NotFound``."""
        if uri == INDEX:
            listed = await self.listed()
            lines = [f"- [{one['title']}]({one['uri']})" for one in listed if one["uri"] != INDEX]
            return [{"uri": uri, "mimeType": "text/plain", "text": "# agent-service\n\n" + "\n".join(lines) + "\n"}]
        page = self.pages.get(uri)
        if page is None:
            raise NotFound(f"No page {uri[:200]!r}: {INDEX} names them.")
        text = await asyncio.to_thread(page.read_text, "utf-8")
        return [{"uri": uri, "mimeType": "text/markdown", "text": text}]


def _title(page: Path) -> str:
    with page.open(encoding="utf-8") as lines:
        return next((line[2:].strip() for line in lines if line.startswith("# ")), page.stem)
