"""Files in messages, in OpenAI's and LangChain's forms, on the wires that show them."""

from typing import Any

import pytest

from app.infra.wires.a2a import Message, Part
from app.protocols.a2a.content import blocks_of, parts_of
from app.protocols.ag_ui.messages import read_content, shown_content
from app.protocols.ai_sdk.inbound import message_of
from app.protocols.ai_sdk.structs import UIMessage
from app.protocols.files import FileBlock, file_in

BLOCKS: list[tuple[dict[str, Any], FileBlock | None]] = [
    ({"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}},
     FileBlock("image", data="AA==", media_type="image/png")),
    ({"type": "image_url", "image_url": "https://example.com/a.png"},
     FileBlock("image", url="https://example.com/a.png", media_type="image/png")),
    ({"type": "file", "file": {"file_data": "data:application/pdf;base64,AA==", "filename": "a.pdf"}},
     FileBlock("file", data="AA==", media_type="application/pdf", name="a.pdf")),
    ({"type": "image", "base64": "AA==", "mime_type": "image/webp"},
     FileBlock("image", data="AA==", media_type="image/webp")),
    ({"type": "audio", "data": "AA==", "mime_type": "audio/wav", "name": "a.wav"},
     FileBlock("audio", data="AA==", media_type="audio/wav", name="a.wav")),
    ({"type": "file", "url": "https://example.com/a.mp4"},
     FileBlock("video", url="https://example.com/a.mp4", media_type="video/mp4")),
    ({"type": "image_url", "image_url": 5}, None),
    ({"type": "file", "file": {"filename": 5}}, None),
    ({"type": [], "url": "x"}, None),
    ({"type": "text", "text": "x"}, None),
]  # fmt: skip


@pytest.mark.parametrize("block, file", BLOCKS)
def test_a_file_is_found_in_every_form_of_a_block(block: dict[str, Any], file: FileBlock | None) -> None:
    assert file_in(block) == file


def test_images_and_sounds_of_graphs_are_shown() -> None:
    image, sound = (
        {"type": "image", "base64": "AA==", "mime_type": "image/webp"},
        {"type": "audio", "url": "https://x/a"},
    )
    assert shown_content([{"type": "text", "text": "See"}, image, sound]) == [
        {"type": "text", "text": "See"},
        {"type": "image", "source": {"type": "data", "value": "AA==", "mimeType": "image/webp"}},
        {"type": "audio", "source": {"type": "url", "value": "https://x/a"}},
    ]
    first, second = parts_of([image, sound])
    assert (first.raw, first.media_type, second.url) == ("AA==", "image/webp", "https://x/a")


URL, DATA = "https://example.com/a", "data:application/pdf;base64,AA=="
IMAGE = {"type": "image_url", "image_url": {"url": URL}}


@pytest.mark.parametrize("media_type", ["application/pdf", "audio/wav", "image/png"])
def test_a_file_by_address_is_no_data_on_any_wire(media_type: str) -> None:
    part = {"type": "file", "mediaType": media_type, "filename": "a", "url": URL}
    block = {"type": "file", "file": {"file_url": URL, "mime_type": media_type, "filename": "a"}}
    expected = [IMAGE if media_type == "image/png" else block]
    assert message_of(UIMessage(id="u", role="user", parts=[part]), 0)["content"] == expected
    sent = Message(message_id="m", role="ROLE_USER", parts=[Part(url=URL, filename="a", media_type=media_type)])
    assert blocks_of(sent) == expected
    source = {"type": "url", "value": URL, "mimeType": media_type}
    assert read_content([{"type": "binary", "source": source, "filename": "a"}]) == expected


@pytest.mark.parametrize("kind", ["audio", "video", "document", "file", "binary"])
def test_no_file_of_ag_ui_is_dropped(kind: str) -> None:
    source = {"type": "data", "value": "AA==", "mimeType": "application/pdf"}
    assert read_content([{"type": kind, "source": source}]) == [{"type": "file", "file": {"file_data": DATA}}]
