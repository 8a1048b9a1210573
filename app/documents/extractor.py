"""Takes the text out of a document, in a process of its own: ``python -I extractor.py TYPE CHARSET MODE``.

The document comes on standard input; lines of JSON go out: ``{"page": true}`` where a page begins, ``{"text"}``, at
last ``{"end", "title", "pages"}``, or ``{"refused"}`` with a sentence. What reads a stranger's file has no secrets in
its environment, bounds on memory, time and files, and nothing of the program around it: this file imports none of it.
MODE ``check`` opens the document and says only whether it can be read.
"""

import codecs
import io
import json
import re
import resource
import signal
import sys
from collections.abc import Iterator
from typing import Any

MEMORY = 1024 * 1024 * 1024
SECONDS = 60
"""Of processor time."""
MOST_PAGES = 10_000
MOST_TEXT = 64 * 1024 * 1024
"""Characters."""
PIECE = 32_768
MOST_NODES = 5_000_000
LONGEST_TITLE = 300

SILENT = {"script", "style", "template", "noscript", "svg", "math", "head", "iframe", "object", "canvas", "textarea"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
LINES = {"br", "li", "tr", "dt", "dd", "summary", "caption", "option"}
"""Stand on lines of their own, without an empty one between them."""
CELLS = {"td", "th"}
BLOCKS = {
    "address", "article", "aside", "blockquote", "details", "div", "dl", "fieldset", "figcaption", "figure", "footer",
    "form", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "ul", *HEADINGS, *LINES,
}  # fmt: skip
GAPS = ["", " ", "\t", "\n", "\n\n"]
"""What can stand between two texts: of several, the last one does."""
_SPACE = re.compile(r"[ \t\n\r\f\v\u00a0]+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*+=\s*+[\"']?+\s*+([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)


class Refused(Exception):
    """The document cannot be read, for the reason that the message says."""


def bound() -> None:
    """Give this process its bounds. The system's own messages for what passes them are told by the parent."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.setrecursionlimit(1_000)


class Out:
    """Writes text in pieces, joined and cleaned of what cannot be stored."""

    def __init__(self) -> None:
        self.length = 0
        self._waiting: list[str] = []
        self._size = 0

    def say(self, **line: Any) -> None:
        """One line."""
        sys.stdout.write(json.dumps(line) + "\n")

    def text(self, text: str) -> None:
        """Add ``text``. Raises ``Refused`` for more than a document may have."""
        text = text.replace("\x00", "").encode("utf-8", "replace").decode()
        self.length += len(text)
        if self.length > MOST_TEXT:
            raise Refused(f"The document has more than {MOST_TEXT:,} characters of text.")
        self._waiting.append(text)
        self._size += len(text)
        if self._size >= PIECE:
            self.flush()

    def flush(self) -> None:
        """Write what waits."""
        whole = "".join(self._waiting)
        self._waiting, self._size = [], 0
        for at in range(0, len(whole), PIECE):
            self.say(text=whole[at : at + PIECE])


def pdf(content: bytes, out: Out, check: bool) -> tuple[str, int]:
    """The text of a PDF, page by page; its title and how many pages."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise Refused("The PDF is encrypted: upload it without a password.")
        count = len(reader.pages)
        if not count:
            raise Refused("The PDF has no pages.")
        if count > MOST_PAGES:
            raise Refused(f"The PDF has {count:,} pages; up to {MOST_PAGES:,} are taken.")
        title = str((reader.metadata.get("/Title") if reader.metadata else "") or "")
        if check:
            reader.pages[0].get_object()
            return title, count
        for page in reader.pages:
            out.flush()
            out.say(page=True)
            out.text(f"{_page(page)}\n\n")
    except (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OSError) as error:
        raise Refused(f"The PDF is broken: {type(error).__name__}: {str(error)[:200]}") from error
    return title, count


def _page(page: Any) -> str:
    """The text of one page; of one that cannot be read, none: the others still say something."""
    try:
        return str(page.extract_text()).strip()
    except (MemoryError, KeyboardInterrupt):
        raise
    except Exception:  # noqa: BLE001  fonts and streams break in more ways than can be named
        return ""


def html(content: bytes, charset: str, out: Out, check: bool) -> tuple[str, int]:
    """The text that a reader of HTML sees, with a line for each block and ``#`` before headings; its title."""
    text = decoded(content, charset)
    if check:
        return "", 0  # any text is HTML to somebody
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    title = tree.css_first("title") if tree.root is not None else None
    heading = tree.css_first("h1") if tree.root is not None else None
    said = [one.text(deep=True) for one in (title, heading) if one is not None]
    if tree.body is not None:
        for piece in seen(tree.body):
            out.text(piece)
    return next((_SPACE.sub(" ", one).strip() for one in said if one.strip()), ""), 0


def decoded(content: bytes, charset: str) -> str:
    """By its mark, by what was said, by its own word, or as UTF-8. Raises ``Refused`` where that does not fit."""
    marks = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    named = _CHARSET.search(content[:4096])
    wanted = next((name for mark, name in marks if content.startswith(mark)), "") or charset
    wanted = wanted or (named[1].decode() if named else "utf-8")
    try:
        return content.decode(wanted)
    except UnicodeDecodeError as error:
        raise Refused(f"The HTML is not {wanted} (byte {error.start}).") from error
    except (LookupError, TypeError, ValueError) as error:
        raise Refused(f"The HTML names the charset {wanted!r}, which is not known.") from error


def walk(body: Any) -> Iterator[tuple[Any, bool]]:
    """The nodes below ``body``, each when it is entered (True) and left. No recursion: depth is up to strangers."""
    node, depth, count = body.child, 1, 0
    while node is not None and depth:
        if (count := count + 1) > MOST_NODES:
            raise Refused(f"The HTML has more than {MOST_NODES:,} elements.")
        yield node, True
        if node.child is not None and node.tag not in SILENT:
            node, depth = node.child, depth + 1
            continue
        yield node, False
        while node.next is None:
            node, depth = node.parent, depth - 1
            if not depth:
                return
            yield node, False
        node = node.next


def seen(body: Any) -> Iterator[str]:
    """What of the tree below ``body`` is seen."""
    gap = mark = ""
    some, verbatim = False, 0
    for node, enters in walk(body):
        tag = node.tag or ""
        if node.is_text_node:
            words = str(node.text_content or "") if enters else ""
            text = words if verbatim else _SPACE.sub(" ", words)
            shown = text if verbatim else text.strip(" ")
            if text[:1] == " " and not verbatim:
                gap = max(gap, " ", key=GAPS.index)
            if shown:
                yield f"{gap if some else ''}{mark}{shown}"
                some, mark, gap = True, "", " " if text[-1] == " " and not verbatim else ""
        elif tag in CELLS:
            gap = gap if enters else max(gap, "\t", key=GAPS.index)
        elif tag in BLOCKS:
            gap = max(gap, "\n" if tag in LINES else "\n\n", key=GAPS.index)
            verbatim += (tag == "pre") * (1 if enters else -1)
            mark = "#" * int(tag[1]) + " " if enters and tag in HEADINGS else "" if tag in HEADINGS else mark


def main(arguments: list[str]) -> None:
    """Read standard input, write lines."""
    bound()
    content_type, charset, mode = arguments
    out = Out()
    try:
        content = sys.stdin.buffer.read()
        if content_type == "application/pdf":
            title, pages = pdf(content, out, mode == "check")
        else:
            title, pages = html(content, charset, out, mode == "check")
        out.flush()
        title = title.replace("\x00", "").encode("utf-8", "replace").decode()[:LONGEST_TITLE].strip()
        out.say(end=True, title=title, pages=pages)
    except Refused as refused:
        out.say(refused=str(refused).encode("utf-8", "replace").decode())
    except MemoryError:
        out.say(refused=f"The document needs more than {MEMORY // 2**20} MiB of memory to be read.")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
