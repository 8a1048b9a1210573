"""A thread's values: stored as JSON, written once, referred to by small heads."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.base.errors import Invalid
from app.base.offload import BULK
from app.domain.messages import HumanMessage
from app.domain.state import INLINE_BYTES, MAX_CHANNELS, MAX_ELEMENTS, Head, State


def message(id_: str, text: str = "x") -> bytes:
    return msgspec.json.encode({"type": "human", "id": id_, "content": text})


def reloaded(state: State, log: dict[int, bytes]) -> State:
    log.update(state.take_items())
    head = msgspec.json.decode(msgspec.json.encode(state.head()), type=Head)
    return State.load(head, log, state.last_number)


def test_a_state_is_restored_from_its_head_and_items() -> None:
    state = State()
    log: dict[int, bytes] = {}
    state.merge_messages([message("a"), message("b")])
    state.set("topic", "weather")
    state.set("report", "long " * INLINE_BYTES)
    assert msgspec.json.decode(reloaded(state, log).json()) == msgspec.json.decode(state.json())


def test_appending_messages_writes_only_the_new_ones() -> None:
    state = State()
    state.merge_messages([message("a"), message("b")])
    state.take_items()
    state.merge_messages([message("c")])
    assert state.take_items() == [(3, message("c"))]
    assert state.head().lists == {"messages": [1, 3]}


def test_a_message_with_a_known_id_replaces_the_old_one() -> None:
    state = State()
    state.merge_messages([message("a"), message("b"), message("c")])
    state.merge_messages([message("b", "new")])
    assert [m["content"] for m in state.get("messages")] == ["x", "new", "x"]
    assert state.head().lists == {"messages": [1, 1, 4, 4, 3, 3]}


def test_remove_deletes_one_message_and_remove_all_everything_before_it() -> None:
    state = State()
    state.merge_messages([message("a"), message("b")])
    state.merge_messages([b'{"type":"remove","id":"a"}'])
    assert [m["id"] for m in state.get("messages")] == ["b"]
    state.merge_messages([b'{"type":"remove","id":"__remove_all__"}', message("z")])
    assert [m["id"] for m in state.get("messages")] == ["z"]


def test_removing_an_unknown_message_changes_nothing() -> None:
    state = State()
    state.merge_messages([message("a")])
    state.merge_messages([b'{"type":"remove","id":"nope"}'])
    assert [m["id"] for m in state.get("messages")] == ["a"]


def test_an_unchanged_value_is_not_written_again() -> None:
    state = State()
    big = "y" * (2 * INLINE_BYTES)
    state.set("big", big)
    state.set("list", [big, "z"])
    state.take_items()
    state.set("big", big)
    state.set("list", [big, "z", "new"])
    assert [body for _, body in state.take_items()] == [b'"new"']


def test_a_fork_keeps_the_numbers_of_both_branches_apart() -> None:
    state = State()
    log: dict[int, bytes] = {}
    state.merge_messages([message("a"), message("b")])
    old = msgspec.json.encode(state.head())
    state.merge_messages([message("c")])
    log.update(state.take_items())
    fork = State.load(msgspec.json.decode(old, type=Head), log, state.last_number)
    fork.merge_messages([message("d")])
    assert fork.head().lists == {"messages": [1, 2, 4, 4]}
    assert [m["id"] for m in reloaded(fork, log).get("messages")] == ["a", "b", "d"]


def test_the_head_of_a_long_thread_stays_small() -> None:
    state = State()
    for number in range(1000):
        state.merge_messages([message(str(number))])
    assert len(msgspec.json.encode(state.head())) < 100


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from(["say", "remove"])), max_size=30))
def test_merging_agrees_with_the_plain_definition(moves: list[tuple[str, str]]) -> None:
    state = State()
    plain: dict[str, str] = {}
    log: dict[int, bytes] = {}
    for number, (id_, move) in enumerate(moves):
        if move == "remove":
            state.merge_messages([msgspec.json.encode({"type": "remove", "id": id_})])
            plain.pop(id_, None)
        else:
            state.merge_messages([message(id_, str(number))])
            plain[id_] = str(number)
        state = reloaded(state, log)
    assert {m["id"]: m["content"] for m in (state.get("messages") or [])} == plain
    assert [m["id"] for m in (state.get("messages") or [])] == list(plain)


def test_a_state_has_a_bounded_number_of_channels() -> None:
    state = State()
    state.apply({f"k{n}": n for n in range(MAX_CHANNELS)})
    state.apply({"k0": "again"})
    with pytest.raises(Invalid, match="at most 1,000 values"):
        state.apply({"one more": 1})


def test_a_very_long_list_is_stored_as_one_value() -> None:
    state = State()
    state.set("long", list(range(MAX_ELEMENTS + 1)))
    assert len(state.take_items()) == 1
    assert state.get("long") == list(range(MAX_ELEMENTS + 1))
    state.set("long", [1, 2])
    assert state.get("long") == [1, 2]


def test_the_json_of_a_state_is_its_joined_chunks() -> None:
    state = State()
    assert b"".join(state.pieces()) == state.json() == b"{}"
    state.apply({"empty": [], "list": [1, "two"], "value": {"a": 1}, "__hidden": 3})
    assert state.json() == b'{"empty":[],"list":[1,"two"],"value":{"a":1}}'


def test_a_view_is_unaffected_by_later_changes() -> None:
    state = State()
    state.apply({"messages": [{"id": "a"}, {"id": "b"}], "list": [1], "value": 1, "gone": 2, "__hidden": 3})
    view, before = state.view(), state.json()
    state.apply({"messages": [{"id": "c"}], "list": [1, 2], "value": 2, "new": 1})
    assert view.json() == before
    state.apply({"messages": [{"id": "a", "type": "human"}, {"id": "b", "type": "remove"}], "list": []})
    assert view.json() == before
    assert state.view().json() == state.json() != before


def test_the_size_of_a_state_is_known_without_decoding_it() -> None:
    state = State()
    log: dict[int, bytes] = {}
    for update in (
        {"messages": [{"id": "a"}, {"id": "b"}], "value": "x" * INLINE_BYTES},
        {"messages": [{"id": "a", "content": "longer"}, {"id": "b", "type": "remove"}], "list": [1, "two"]},
        {"list": ["three"], "value": 1},
    ):
        state.apply(update)
        held = [*state.elements(), *state.elements("list"), msgspec.json.encode(state.get("value"))]
        assert state.view().size == reloaded(state, log).view().size == sum(map(len, held))


def test_the_effort_of_an_update_counts_lists_only_if_they_are_read() -> None:
    state = State()
    state.merge_messages([message(f"m{n}", "x" * 100) for n in range(BULK // 100)])
    new = HumanMessage(content="hello", id="new")
    for fresh in (new, {"id": "new"}, msgspec.Raw(message("new"))):
        assert state.effort({"messages": [fresh]}) < 1000
    assert state.effort({"messages": [HumanMessage(content="x" * BULK, id="new")]}) >= BULK
    for known in (HumanMessage(content="", id="m1"), {"id": "m1", "type": "remove"}, msgspec.Raw(message("m1"))):
        assert state.effort({"messages": [known]}) > BULK
    again = State.load(state.head(), dict(state.take_items()), state.last_number)
    assert again.effort({"messages": [new]}) > BULK  # the ids of what is there are not known yet
    again.apply({"messages": [new]})
    assert again.effort({"messages": [msgspec.structs.replace(new, id="newer")]}) < 1000
