"""Extract the text of an untrusted document, in a child process: ``python -I extractor.py TYPE CHARSET MODE``.

Reads the document from standard input and writes JSON lines: ``{"page": true}`` at the start of a page, ``{"text"}``,
finally ``{"end", "title", "pages"}``, or ``{"refused"}`` with the reason. The process has no secrets in its
environment, limits of memory, time and files, and imports nothing of the rest of the program. Before it parses the
document it drops network, files and user, as far as the kernel allows (``confine``). MODE ``check`` opens the document
and reports only whether it can be read; ``confinement`` reports which restrictions hold.
"""

import codecs
import contextlib
import ctypes
import encodings
import importlib
import io
import json
import os
import pkgutil
import re
import resource
import signal
import socket
import sys
from collections.abc import Iterator
from typing import Any

MAX_MEMORY_BYTES = 1024 * 1024 * 1024
MAX_CPU_SECONDS = 60
MAX_PAGES = 10_000
MAX_TEXT_LENGTH = 64 * 1024 * 1024
"""Characters."""
PIECE_LENGTH = 32_768
MAX_NODES = 5_000_000
MAX_TITLE_LENGTH = 300

SILENT = {"script", "style", "template", "noscript", "svg", "math", "head", "iframe", "object", "canvas", "textarea"}
HEADINGS = {"h1", "h2", "h3", "h4", "h5", "h6"}
LINES = {"br", "li", "tr", "dt", "dd", "summary", "caption", "option"}
"""Elements on lines of their own, without an empty line between them."""
CELLS = {"td", "th"}
BLOCKS = {
    "address", "article", "aside", "blockquote", "details", "div", "dl", "fieldset", "figcaption", "figure", "footer",
    "form", "header", "hr", "main", "nav", "ol", "p", "pre", "section", "table", "ul", *HEADINGS, *LINES,
}  # fmt: skip
GAPS = ["", " ", "\t", "\n", "\n\n"]
"""Separators of two texts; of several, the last in this list wins."""
_SPACE = re.compile(r"[ \t\n\r\f\v\u00a0]+")
_CHARSET = re.compile(rb"<meta[^>]{0,200}charset\s*+=\s*+[\"']?+\s*+([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)

MAX_FILES = 16
"""Open descriptors."""
UNPRIVILEGED_ID = 65534
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  an empty folder, removed before it is used
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


class ExtractionRefused(Exception):
    """The document cannot be read; the message says why."""


def limit_resources() -> None:
    """Set the resource limits of this process; the parent reports when the kernel enforces one."""
    resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (MAX_CPU_SECONDS, MAX_CPU_SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.setrecursionlimit(1_000)


def load(content_type: str, charset: str) -> None:
    """Import all that may be needed: nothing can be imported once the file system is out of reach."""
    with contextlib.suppress(LookupError, ValueError):
        codecs.lookup(charset)
    if content_type != "application/pdf":
        importlib.import_module("selectolax.lexbor")
        return
    packages = [encodings, importlib.import_module("pypdf")]
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ImportError):  # modules of other platforms, or with optional dependencies
                importlib.import_module(module.name)


def confine() -> None:
    """Drop new privileges, network, file system, user and child processes, as far as the kernel allows.

    An ordinary user needs a user namespace for network and files, which some systems do not allow; root needs none. A
    system call filter would add little: only the two pipes are left to reach.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    if libc.unshare(CLONE_NEWNET):
        libc.unshare(CLONE_NEWUSER | CLONE_NEWNET)
    for folder in TEMPORARY:
        with contextlib.suppress(OSError):
            empty = f"{folder}/agent-service-{os.getpid()}-{os.urandom(8).hex()}"
            os.mkdir(empty, 0o700)  # noqa: PTH102
            os.chdir(empty)
            os.rmdir(empty)  # noqa: PTH106  so nothing can be created in it
            os.chroot(".")
            break
    if os.getuid() == 0:
        with contextlib.suppress(OSError):
            os.setgroups([])
            os.setresgid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
            os.setresuid(UNPRIVILEGED_ID, UNPRIVILEGED_ID, UNPRIVILEGED_ID)
    resource.setrlimit(resource.RLIMIT_NOFILE, (MAX_FILES, MAX_FILES))
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_NPROC, (0, 0))


def confinement() -> dict[str, bool]:
    """Try each restriction and return whether it holds."""
    return {
        "files": not _works(lambda: os.scandir("/etc")),
        "writing": not _works(_file),
        "network": not _works(_interface),
        "user": os.geteuid() != 0 and os.getuid() != 0,
        "processes": not _works(_child),
        "descriptors": not _works(lambda: [os.dup(0) for _ in range(MAX_FILES)]),
        "memory": not _works(lambda: bytearray(MAX_MEMORY_BYTES)),
    }


def _works(attempt: Any) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return False
    return True


def _interface() -> None:
    """Connect to this machine: without a network not even the loopback address is reachable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))


def _file() -> None:
    written = os.open("/tmp/written", os.O_WRONLY | os.O_CREAT)  # noqa: S108  expected to fail
    try:
        os.write(written, b"x")
    finally:
        os.close(written)
        os.remove("/tmp/written")  # noqa: S108, PTH107  nothing can be imported any more


def _child() -> None:
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


class TextWriter:
    """Writes text as JSON lines, in pieces, without characters that cannot be stored."""

    def __init__(self) -> None:
        self.length = 0
        self._buffer: list[str] = []
        self._size = 0

    def write_line(self, **line: Any) -> None:
        """Write one JSON line."""
        sys.stdout.write(json.dumps(line) + "\n")

    def text(self, text: str) -> None:
        """Add ``text``. Raises ``ExtractionRefused`` if the document has too much."""
        text = text.replace("\x00", "").encode("utf-8", "replace").decode()
        self.length += len(text)
        if self.length > MAX_TEXT_LENGTH:
            raise ExtractionRefused(f"The document has more than {MAX_TEXT_LENGTH:,} characters of text.")
        self._buffer.append(text)
        self._size += len(text)
        if self._size >= PIECE_LENGTH:
            self.flush()

    def flush(self) -> None:
        """Write the buffered text."""
        text = "".join(self._buffer)
        self._buffer, self._size = [], 0
        for at in range(0, len(text), PIECE_LENGTH):
            self.write_line(text=text[at : at + PIECE_LENGTH])


def pdf(content: bytes, out: TextWriter, check: bool) -> tuple[str, int]:
    """Write the text of a PDF page by page. Return its title and number of pages."""
    from pypdf import PdfReader
    from pypdf.errors import PyPdfError

    try:
        reader = PdfReader(io.BytesIO(content), strict=False)
        if reader.is_encrypted and not reader.decrypt(""):
            raise ExtractionRefused("The PDF is encrypted: upload it without a password.")
        count = len(reader.pages)
        if not count:
            raise ExtractionRefused("The PDF has no pages.")
        if count > MAX_PAGES:
            raise ExtractionRefused(f"The PDF has {count:,} pages; at most {MAX_PAGES:,} are accepted.")
        title = str((reader.metadata.get("/Title") if reader.metadata else "") or "")
        if check:
            reader.pages[0].get_object()
            return title, count
        for page in reader.pages:
            out.flush()
            out.write_line(page=True)
            out.text(f"{_page(page)}\n\n")
    except (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OSError) as error:
        raise ExtractionRefused(f"The PDF is broken: {type(error).__name__}: {str(error)[:200]}") from error
    return title, count


def _page(page: Any) -> str:
    """Return the text of one page, empty if it cannot be read, so that the other pages are kept."""
    try:
        return str(page.extract_text()).strip()
    except (MemoryError, KeyboardInterrupt, ImportError):  # a missing import is a bug of this program, not of the page
        raise
    except Exception:  # noqa: BLE001  fonts and streams break in more ways than can be named
        return ""


def html(content: bytes, charset: str, out: TextWriter, check: bool) -> tuple[str, int]:
    """Write the visible text of HTML, with a line for each block and ``#`` before headings. Return its title."""
    text = decode_html(content, charset)
    if check:
        return "", 0  # any text can be read as HTML
    from selectolax.lexbor import LexborHTMLParser

    tree = LexborHTMLParser(text)
    title = tree.css_first("title") if tree.root is not None else None
    heading = tree.css_first("h1") if tree.root is not None else None
    titles = [one.text(deep=True) for one in (title, heading) if one is not None]
    if tree.body is not None:
        for piece in visible_text(tree.body):
            out.text(piece)
    return next((_SPACE.sub(" ", one).strip() for one in titles if one.strip()), ""), 0


def decode_html(content: bytes, charset: str) -> str:
    """Decode HTML by ``charset_of``. Raises ``ExtractionRefused`` if that fails."""
    wanted = charset_of(content, charset)
    try:
        return content.decode(wanted)
    except UnicodeDecodeError as error:
        raise ExtractionRefused(f"The HTML is not {wanted} (byte {error.start}).") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ExtractionRefused(f"The HTML names the charset {wanted!r}, which is not known.") from error


def charset_of(content: bytes, charset: str) -> str:
    """Return the charset of HTML: by byte order mark, by ``charset`` of the upload, by its meta element, or UTF-8."""
    marks = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    named = _CHARSET.search(content[:4096])
    wanted = next((name for mark, name in marks if content.startswith(mark)), "") or charset
    return wanted or (named[1].decode() if named else "utf-8")


def walk(body: Any) -> Iterator[tuple[Any, bool]]:
    """Yield the nodes below ``body``, each on entry (True) and exit. Not recursive: documents choose their depth."""
    node, depth, count = body.child, 1, 0
    while node is not None and depth:
        if (count := count + 1) > MAX_NODES:
            raise ExtractionRefused(f"The HTML has more than {MAX_NODES:,} elements.")
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


def visible_text(body: Any) -> Iterator[str]:
    """Yield the visible text below ``body`` in pieces."""
    gap = mark = ""
    started, verbatim = False, 0
    for node, enters in walk(body):
        tag = node.tag or ""
        if node.is_text_node:
            words = str(node.text_content or "") if enters else ""
            text = words if verbatim else _SPACE.sub(" ", words)
            shown = text if verbatim else text.strip(" ")
            if text[:1] == " " and not verbatim:
                gap = max(gap, " ", key=GAPS.index)
            if shown:
                yield f"{gap if started else ''}{mark}{shown}"
                started, mark, gap = True, "", " " if text[-1] == " " and not verbatim else ""
        elif tag in CELLS:
            gap = gap if enters else max(gap, "\t", key=GAPS.index)
        elif tag in BLOCKS:
            gap = max(gap, "\n" if tag in LINES else "\n\n", key=GAPS.index)
            verbatim += (tag == "pre") * (1 if enters else -1)
            mark = "#" * int(tag[1]) + " " if enters and tag in HEADINGS else "" if tag in HEADINGS else mark


def main(arguments: list[str]) -> None:
    """Read a document from standard input and write its lines."""
    limit_resources()
    content_type, charset, mode = arguments
    out = TextWriter()
    try:
        content = sys.stdin.buffer.read()
        load(content_type, "" if content_type == "application/pdf" else charset_of(content, charset))
        confine()
        title, pages = "", 0
        if mode == "confinement":
            out.write_line(**confinement())
        elif content_type == "application/pdf":
            title, pages = pdf(content, out, mode == "check")
        else:
            title, pages = html(content, charset, out, mode == "check")
        out.flush()
        title = title.replace("\x00", "").encode("utf-8", "replace").decode()[:MAX_TITLE_LENGTH].strip()
        out.write_line(end=True, title=title, pages=pages)
    except ExtractionRefused as refused:
        out.write_line(refused=str(refused).encode("utf-8", "replace").decode())
    except MemoryError:
        out.write_line(refused=f"The document needs more than {MAX_MEMORY_BYTES // 2**20} MiB of memory to be read.")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
