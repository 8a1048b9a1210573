"""Files in the content of messages, whatever form their blocks have: OpenAI's, or LangChain's."""

import mimetypes
import re
from typing import Any, NamedTuple

_DATA_URL = re.compile(r"data:([^;,]*)(?:;[^,]*)?;base64,(.*)", re.DOTALL)
_KINDS = ("image", "audio", "video", "file")


class FileBlock(NamedTuple):
    """A file: at a ``url``, or its bytes in Base64 as ``data``. ``kind``: image, audio, video or file.

    ``media_type`` and ``name`` are empty if the block has none.
    """

    kind: str
    url: str = ""
    data: str = ""
    media_type: str = ""
    name: str = ""


def file_in(block: dict[str, Any]) -> FileBlock | None:
    """Return the file in a content block; None if it has none."""
    kind = str(block.get("type"))
    if kind == "image_url":
        image = block.get("image_url")
        return _file("image", image.get("url") if isinstance(image, dict) else image, "", "")
    if kind not in _KINDS:
        return None
    file = block.get("file")
    about = file if kind == "file" and isinstance(file, dict) else block
    name = _text(about.get("filename") or about.get("name"))
    media_type = _text(about.get("mime_type") or about.get("mimeType"))
    data = about.get("base64") or about.get("data")
    if isinstance(data, str):
        return FileBlock(_kind(kind, media_type), data=data, media_type=media_type, name=name)
    return _file(kind, about.get("file_data") or about.get("file_url") or about.get("url"), media_type, name)


def file_block(url: str, media_type: str = "", name: str = "") -> dict[str, Any]:
    """Return the content block, in OpenAI's form, of a file at a ``url``, or with its bytes in a data URL."""
    if media_type.startswith("image/"):
        return {"type": "image_url", "image_url": {"url": url}}
    if url.startswith("data:"):
        about = {"file_data": url}
    else:
        about = {"file_url": url, **({"mime_type": media_type} if media_type else {})}
    return {"type": "file", "file": {**about, **({"filename": name} if name else {})}}


def _file(kind: str, url: Any, media_type: str, name: str) -> FileBlock | None:
    if not isinstance(url, str) or not url:
        return None
    inline = _DATA_URL.fullmatch(url)
    if inline is not None:
        media_type = media_type or inline[1]
        return FileBlock(_kind(kind, media_type), data=inline[2], media_type=media_type, name=name)
    media_type = media_type or mimetypes.guess_type(name or url)[0] or ""
    return FileBlock(_kind(kind, media_type), url=url, media_type=media_type, name=name)


def _kind(kind: str, media_type: str) -> str:
    top = media_type.partition("/")[0]
    return top if kind == "file" and top in _KINDS else kind


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
