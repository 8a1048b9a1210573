"""Check the guarantees against the ledger, the transitions in the database, and the clients' records."""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import asyncpg

from app.domain.lifecycle import TERMINAL, TRANSITIONS, RunStatus
from tests.faults.driver import END_SECONDS, Driver, RunRecord
from tests.faults.programs import Program

TRANSITIONS_OF_ALL = """
select run_id::text, old_status, new_status, reason from run_transitions order by number
"""


def numbers(frame_id: str) -> tuple[int, int]:
    epoch, _, seq = frame_id.partition("-")
    return int(epoch), int(seq)


def streams(record: RunRecord) -> Iterable[str]:
    """Frame ids increase by one within an epoch, a new owner starts at 1, nothing follows the end."""
    last = (0, 0)
    for frame_id, _, _ in record.frames:
        epoch, seq = numbers(frame_id)
        if not ((epoch == last[0] and seq == last[1] + 1) or (epoch > last[0] and seq == 1)):
            yield f"run {record.run_id}: {frame_id} after {last[0]}-{last[1]}"
        last = (epoch, seq)
    ends = [event for _, event, _ in record.frames if event == "end"]
    if len(ends) != 1 or record.frames[-1][1] != "end":
        yield f"run {record.run_id}: {len(ends)} ends"


def repeated(record: RunRecord, replay: Sequence[tuple[str, str, bytes]]) -> Iterable[str]:
    """The stream equals its replay byte for byte; frames missing in the log were retracted later."""
    logged = {frame_id: frame for frame_id, _, frame in replay}
    withdrawn = max((numbers(one)[0] for one, event, _ in record.frames if event == "retracted"), default=0)
    for frame_id, event, frame in record.frames:
        if frame_id not in logged:
            if numbers(frame_id)[0] >= withdrawn:
                yield f"run {record.run_id}: {frame_id} ({event}) is not in the replay and was not retracted"
        elif logged[frame_id] != frame:
            yield f"run {record.run_id}: {frame_id} ({event}) differs in the replay"
    missing = logged.keys() - {frame_id for frame_id, _, _ in record.frames}
    if missing:
        yield f"run {record.run_id}: {sorted(missing, key=numbers)} never came, on {record.connections} connections"


def failed(record: RunRecord) -> Iterable[str]:
    """No program fails on its own."""
    if record.status in {"error", "timeout"}:
        words = [frame.decode() for _, event, frame in record.frames if event == "error"]
        yield f"run {record.run_id} of {record.program} ended as {record.status}: {words}"


def ends(record: RunRecord) -> Iterable[str]:
    """Every reader receives the end of a run within ``END_SECONDS`` of the first."""
    if record.late > END_SECONDS:
        yield f"run {record.run_id}: a reader waited {record.late:.1f} s for its end"


def effects(programs: Iterable[Program], report: dict[str, list[dict[str, Any]]]) -> Iterable[str]:
    """An unsafe or reconcilable call happened once; an idempotent one under one key; nothing else happened."""
    expected: Counter[tuple[str, int]] = Counter()
    for program in programs:
        expected.update((name, n) for name, n in program.ops if name in {"put", "book", "pay"})
    keys = Counter((effect["tool"], effect["n"], effect["key"]) for effect in report["effects"])
    found: Counter[tuple[str, int]] = Counter()
    for (tool, n, key), times in keys.items():
        if tool == "read":
            continue
        found[tool, n] += 1
        if tool != "put" and times != 1:
            same = [effect for effect in report["effects"] if effect["key"] == key]
            calls = [{name: effect.get(name) for name in ("pid", "began", "received_at")} for effect in same]
            yield f"{tool} {n} happened {times} times under the key {key}: {calls}"
    for call in expected.keys() | found.keys():
        if expected[call] != found[call]:
            yield f"{call} was asked for {expected[call]} times and happened under {found[call]} keys"


def questions(report: dict[str, list[dict[str, Any]]], programs: Iterable[Program]) -> Iterable[str]:
    """A model is not asked again for an answer whose tool has started: that answer was committed.

    A request of a process that lost its run may arrive after those of its successor. It commits nothing, so it never
    sends the next request; one that does has repeated a committed step.
    """
    for program in programs:
        asked = [one for one in report["asked"] if one["program"] == program.id] if program.agent == "loop" else []
        asked.sort(key=lambda one: one["at"])
        for number, one in enumerate(asked):
            furthest = max((before["step"] for before in asked[:number]), default=0)
            continued = any((two["by"], two["step"]) == (one["by"], one["step"] + 1) for two in asked[number + 1 :])
            if one["step"] < furthest and continued:
                same = [(two["step"], two["received_at"], two["by"]) for two in asked]
                yield f"the model was asked again for {program.id} at step {one['step']}: {same}"


async def transitions(database_url: str, records: Sequence[RunRecord]) -> Iterable[str]:
    """Every run ended once, by legal transitions, with the status that its client saw."""
    connection = await asyncpg.connect(database_url)
    try:
        rows = await connection.fetch(TRANSITIONS_OF_ALL)
    finally:
        await connection.close()
    wrong: list[str] = []
    ended: dict[str, str] = {}
    for row in rows:
        run_id, old, new = row["run_id"], row["old_status"], row["new_status"]
        if old is not None and new is not None and RunStatus(new) not in TRANSITIONS[RunStatus(old)] and new != old:
            wrong.append(f"run {run_id}: {old} to {new}")
        if new is not None and RunStatus(new) in TERMINAL:
            if run_id in ended:
                wrong.append(f"run {run_id} ended twice: {ended[run_id]}, {new}")
            ended[run_id] = new
    wrong += [
        f"run {one.run_id}: the client saw {one.status}, the database has {ended.get(one.run_id)}"
        for one in records
        if ended.get(one.run_id) != one.status
    ]
    known = {one.run_id for one in records}
    wrong += [f"run {run_id} is known to no client: created twice for one key" for run_id in ended.keys() - known]
    return wrong


async def conversations(driver: Driver, threads: Sequence[Sequence[Program]]) -> Iterable[str]:
    """Every thread has exactly the messages and the total of its programs."""
    wrong = []
    for number, turns in enumerate(threads):
        values = await driver.state(driver.thread_ids[number])
        if values.get("total", 0) != (total := sum(program.total for program in turns)):
            wrong.append(f"thread {number}: the total is {values.get('total')}, not {total}")
        questions_found = [m["content"] for m in values["messages"] if m["type"] == "human"]
        if questions_found != [program.input["messages"][0]["content"] for program in turns]:
            wrong.append(f"thread {number} has {len(questions_found)} questions, not {len(turns)}")
        ends = [m["content"] for m in values["messages"] if m["type"] == "ai" and str(m["content"]).startswith("done ")]
        if ends != [f"done {program.id}" for program in turns]:
            wrong.append(f"thread {number} has {len(ends)} answers, not {len(turns)}")
        calls = sum(m["type"] == "tool" for m in values["messages"])
        if calls != (wanted := sum(len(program.ops) for program in turns if program.agent == "loop")):
            wrong.append(f"thread {number} has {calls} answers of tools, not {wanted}")
    return wrong
