"""Takes the text out of a document, in a process of its own: ``python -I extractor.py TYPE CHARSET MODE``.

The document comes on standard input; lines of JSON go out: ``{"page": true}`` where a page begins, ``{"text"}``, at
last ``{"end", "title", "pages"}``, or ``{"refused"}`` with a sentence. What reads a stranger's file has no secrets in
its environment, bounds on memory, time and files, and nothing of the program around it: this file imports none of it.
Before it looks at the document it gives up what the kernel lets it give up (``confine``): network, files, its user.
MODE ``check`` opens the document and says only whether it can be read; ``confinement`` says what holds.
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

MEMORY = 1024 * 1024 * 1024
SECONDS = 60
"""Of processor time."""
MAX_PAGES = 10_000
MAX_TEXT_BYTES = 64 * 1024 * 1024
"""Characters."""
PIECE = 32_768
MAX_NODES = 5_000_000
MAX_TITLE_LENGTH = 300

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


MAX_FILES = 16
"""Descriptors that are open at once."""
UNPRIVILEGED_ID = 65534
TEMPORARY = ("/tmp", "/var/tmp", "/dev/shm")  # noqa: S108  an empty folder, that is gone before it is used
PR_SET_NO_NEW_PRIVS = 38
CLONE_NEWUSER, CLONE_NEWNET = 0x10000000, 0x40000000


class ExtractionRefused(Exception):
    """The document cannot be read, for the reason that the message says."""


def bound() -> None:
    """Give this process its bounds. The system's own messages for what passes them are told by the parent."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 5))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    sys.setrecursionlimit(1_000)


def load(content_type: str, charset: str) -> None:
    """Import all that may be needed to read the document: nothing can be imported once the files are out of reach."""
    with contextlib.suppress(LookupError, ValueError):
        codecs.lookup(charset)
    if content_type != "application/pdf":
        importlib.import_module("selectolax.lexbor")
        return
    packages = [encodings, importlib.import_module("pypdf")]
    for package in packages:
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            with contextlib.suppress(ImportError):  # of other systems, and of packages that are not installed
                importlib.import_module(module.name)


def confine() -> None:
    """Give up what the kernel lets this process give up: new rights, the network, the files, its user, new processes.

    As an ordinary user network and files take a user namespace, which some systems do not allow; root needs none. A
    filter of system calls would add little: there is nothing left to reach but the two pipes.
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
            os.rmdir(empty)  # noqa: PTH106  nothing can be made in it any more
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
    """What is out of reach now, tried."""
    return {
        "files": not _works(lambda: os.scandir("/etc")),
        "writing": not _works(_file),
        "network": not _works(_interface),
        "user": os.geteuid() != 0 and os.getuid() != 0,
        "processes": not _works(_child),
        "descriptors": not _works(lambda: [os.dup(0) for _ in range(MAX_FILES)]),
        "memory": not _works(lambda: bytearray(MEMORY)),
    }


def _works(attempt: Any) -> bool:
    try:
        attempt()
    except (OSError, MemoryError):
        return False
    return True


def _interface() -> None:
    """Send a datagram to this machine: without a network not even its own address is reachable."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.connect(("127.0.0.1", 9))


def _file() -> None:
    written = os.open("/tmp/written", os.O_WRONLY | os.O_CREAT)  # noqa: S108  it is not to come about
    try:
        os.write(written, b"x")
    finally:
        os.close(written)
        os.remove("/tmp/written")  # noqa: S108, PTH107  nothing more is to be imported


def _child() -> None:
    if not (child := os.fork()):
        os._exit(0)
    os.waitpid(child, 0)


class TextWriter:
    """Writes text in pieces, joined and cleaned of what cannot be stored."""

    def __init__(self) -> None:
        self.length = 0
        self._waiting: list[str] = []
        self._size = 0

    def say(self, **line: Any) -> None:
        """One line."""
        sys.stdout.write(json.dumps(line) + "\n")

    def text(self, text: str) -> None:
        """Add ``text``. Raises ``ExtractionRefused`` for more than a document may have."""
        text = text.replace("\x00", "").encode("utf-8", "replace").decode()
        self.length += len(text)
        if self.length > MAX_TEXT_BYTES:
            raise ExtractionRefused(f"The document has more than {MAX_TEXT_BYTES:,} characters of text.")
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


def pdf(content: bytes, out: TextWriter, check: bool) -> tuple[str, int]:
    """The text of a PDF, page by page; its title and how many pages."""
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
            raise ExtractionRefused(f"The PDF has {count:,} pages; up to {MAX_PAGES:,} are taken.")
        title = str((reader.metadata.get("/Title") if reader.metadata else "") or "")
        if check:
            reader.pages[0].get_object()
            return title, count
        for page in reader.pages:
            out.flush()
            out.say(page=True)
            out.text(f"{_page(page)}\n\n")
    except (PyPdfError, ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError, OSError) as error:
        raise ExtractionRefused(f"The PDF is broken: {type(error).__name__}: {str(error)[:200]}") from error
    return title, count


def _page(page: Any) -> str:
    """The text of one page; of one that cannot be read, none: the others still say something."""
    try:
        return str(page.extract_text()).strip()
    except (MemoryError, KeyboardInterrupt, ImportError):  # what is not imported by now is ours to fix, not the page's
        raise
    except Exception:  # noqa: BLE001  fonts and streams break in more ways than can be named
        return ""


def html(content: bytes, charset: str, out: TextWriter, check: bool) -> tuple[str, int]:
    """The text that a reader of HTML sees, with a line for each block and ``#`` before headings; its title."""
    text = decoded(content, charset)
    if check:
        return "", 0  # any text can be read as HTML
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
    """By its mark, by what was said, by its own word, or as UTF-8. Raises ``ExtractionRefused`` where that does not
    fit.
    """
    wanted = charset_of(content, charset)
    try:
        return content.decode(wanted)
    except UnicodeDecodeError as error:
        raise ExtractionRefused(f"The HTML is not {wanted} (byte {error.start}).") from error
    except (LookupError, TypeError, ValueError) as error:
        raise ExtractionRefused(f"The HTML names the charset {wanted!r}, which is not known.") from error


def charset_of(content: bytes, charset: str) -> str:
    """The charset of an HTML document: by its mark, by ``charset``, by its own word, or UTF-8."""
    marks = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
    named = _CHARSET.search(content[:4096])
    wanted = next((name for mark, name in marks if content.startswith(mark)), "") or charset
    return wanted or (named[1].decode() if named else "utf-8")


def walk(body: Any) -> Iterator[tuple[Any, bool]]:
    """The nodes below ``body``, each when it is entered (True) and left. No recursion: depth is up to strangers."""
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
    out = TextWriter()
    try:
        content = sys.stdin.buffer.read()
        load(content_type, "" if content_type == "application/pdf" else charset_of(content, charset))
        confine()
        title, pages = "", 0
        if mode == "confinement":
            out.say(**confinement())
        elif content_type == "application/pdf":
            title, pages = pdf(content, out, mode == "check")
        else:
            title, pages = html(content, charset, out, mode == "check")
        out.flush()
        title = title.replace("\x00", "").encode("utf-8", "replace").decode()[:MAX_TITLE_LENGTH].strip()
        out.say(end=True, title=title, pages=pages)
    except ExtractionRefused as refused:
        out.say(refused=str(refused).encode("utf-8", "replace").decode())
    except MemoryError:
        out.say(refused=f"The document needs more than {MEMORY // 2**20} MiB of memory to be read.")
    sys.stdout.flush()


if __name__ == "__main__":
    main(sys.argv[1:])
