"""Events become frames: CRLF, event before data before id, ids without a gap."""

import msgspec

from app.domain.events import Custom, Ended, Event, InputApplied, Interrupted, MessageDelta, RunStarted, StepCommitted
from app.domain.state import State
from app.engine.streams.frames import FrameRenderer

RUN = "01a206d2-02c7-7701-809a-5c1fb81f0fcb"


def lines(data: bytes) -> dict[str, str]:
    assert data.endswith(b"\r\n\r\n")
    return dict(line.split(": ", 1) for line in data.decode().strip().split("\r\n"))


def test_a_run_begins_with_metadata_and_ends_with_end() -> None:
    renderer = FrameRenderer(["values"], epoch=2)
    first = lines(renderer.render(RunStarted(run_id=RUN, attempt=1))[0].data)
    assert first == {"event": "metadata", "data": f'{{"run_id":"{RUN}","attempt":1}}', "id": "2-1"}
    last = lines(renderer.render(Ended(run_id=RUN, status="success"))[0].data)
    assert last == {"event": "end", "data": f'{{"run_id":"{RUN}","status":"success"}}', "id": "2-2"}


def test_a_token_frame_is_small_and_a_chunk_that_clients_can_join() -> None:
    renderer = FrameRenderer(["messages-tuple"], epoch=1)
    delta = MessageDelta(message_id=f"run--{RUN}", node="agent", step=12, text="tok99 ")
    (frame,) = renderer.render(delta)
    assert len(frame.data) < 300
    fields = lines(frame.data)
    assert fields["event"] == "messages"
    chunk, where = msgspec.json.decode(fields["data"])
    assert chunk == {"content": "tok99 ", "type": "AIMessageChunk", "id": f"run--{RUN}"}
    assert where == {"langgraph_node": "agent", "langgraph_step": 12}


def test_a_token_frame_carries_tool_calls_reasoning_and_the_last_mark() -> None:
    renderer = FrameRenderer(["messages-tuple"], epoch=1)
    call = {"index": 0, "id": "c1", "name": "clock", "args": '{"zone"'}
    (frame,) = renderer.render(
        MessageDelta(message_id="100%", node="agent", step=1, tool_call=call, reasoning="so", last=True)
    )
    chunk, _ = msgspec.json.decode(lines(frame.data)["data"])
    assert chunk["tool_call_chunks"] == [{**call, "type": "tool_call_chunk"}]
    assert chunk["additional_kwargs"] == {"reasoning_content": "so"}
    assert chunk["chunk_position"] == "last"
    assert chunk["id"] == "100%"


def test_a_step_makes_an_updates_frame_and_then_a_values_frame() -> None:
    renderer = FrameRenderer(["values", "updates"], epoch=1)
    event = StepCommitted(step=0, checkpoint_id=RUN, updates=msgspec.Raw(b'{"agent":{}}'))
    state = State()
    state.set("messages", [])
    updates, values = renderer.render(event, state.view())
    assert lines(updates.data)["data"] == '{"agent":{}}'
    assert lines(values.data)["data"] == '{"messages":[]}'
    assert [updates.mode, values.mode] == ["updates", "values"]
    assert [lines(f.data)["id"] for f in (updates, values)] == ["1-1", "1-2"]


def test_an_event_outside_the_modes_makes_no_frame_and_uses_no_number() -> None:
    renderer = FrameRenderer(["updates"], epoch=1)
    delta = MessageDelta(message_id="m", node="agent", step=0, text="x")
    recorded: list[Event] = [InputApplied(checkpoint_id=RUN), Custom(data=msgspec.Raw(b"1"))]
    assert [renderer.wants(event) for event in (*recorded, delta)] == [True, True, False]
    assert [renderer.render(event) for event in (*recorded, delta)] == [[], [], []]
    assert renderer.seq == 0


def test_an_interrupt_is_a_member_of_updates_and_of_values() -> None:
    renderer = FrameRenderer(["values", "updates"], epoch=1)
    event = Interrupted(checkpoint_id=RUN, interrupts=msgspec.Raw(b'[{"value":1,"id":"i"}]'))
    updates, values = renderer.render(event)
    assert lines(updates.data)["data"] == '{"__interrupt__":[{"value":1,"id":"i"}]}'
    assert lines(values.data)["data"] == '{"__interrupt__":[{"value":1,"id":"i"}]}'


def test_text_with_line_ends_stays_inside_its_frame() -> None:
    renderer = FrameRenderer(["messages-tuple"], epoch=1)
    (frame,) = renderer.render(MessageDelta(message_id="m", node="agent", step=0, text="a\r\n\r\nevent: end\n"))
    assert frame.data.count(b"\r\n\r\n") == 1
