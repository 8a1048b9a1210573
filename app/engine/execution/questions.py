"""Questions to people: recorded when a run ends with them, closed by the run that brings the answer.

A question is open while its thread lists it as waiting and its row is not closed; the row of a question asked by an
older version is inserted when its answer closes it. The accept statement decides (``app.engine.queue.sql``).
"""

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID, uuid5

import msgspec

from app.agents.open_calls import OpenCalls
from app.agents.port import Interrupt, QuestionKind, UnresolvedCall
from app.base import json_scan
from app.base.errors import AgentError, BadRequest, Forbidden, Invalid
from app.base.json_schema import JsonSchema
from app.base.schema_visits import CheckTooExpensive
from app.engine.entries import ClaimedRun
from app.engine.execution.sql import LOAD_RESUME_STATE
from app.infra.db.engine import Database

MAX_WORDS = 300
"""Maximum length of the validation message for an answer that does not fit."""

encode = msgspec.json.Encoder().encode


class OpenQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """An open question: clients answer it by ``id``, agents look up the answer by ``key``.

    ``value`` is shown to the person, ``call_id`` is the tool call that waits for the answer. ``run_id``: the run that
    asked. ``requested_by``: the person who requested its work. Both None if an older version recorded neither.
    """

    id: str
    key: str
    kind: QuestionKind
    value: Any = None
    call_id: str | None = None
    run_id: UUID | None = None
    expects: dict[str, Any] | None = None
    others_only: bool = False
    requested_by: str | None = None

    def check(self, answer: Any, actor: str, approves: bool, at: str) -> None:
        """Validate an ``answer`` given by ``actor``.

        Raises ``Forbidden`` if ``actor`` may not give it, ``Invalid`` pointing to ``at`` if it does not fit the schema
        or would take too long to check. A schema that is not valid, costs too much, or refers to other files or hosts,
        checks nothing.
        """
        if self.kind != "question":
            if not approves:
                raise Forbidden("This key may not approve tool calls: that needs the scope approve.")
            if self.others_only and self.requested_by == actor:
                raise Forbidden("This agent's tools are approved by another person than the one who asked for the run.")
        decisions = answer.get("decisions") if isinstance(answer, dict) else None
        requests = self.value.get("action_requests") if isinstance(self.value, dict) else None
        if isinstance(decisions, list) and isinstance(requests, list) and len(decisions) != len(requests):
            words = f"has {len(decisions)} decisions, but question {self.id} is about {len(requests)} calls"
            raise Invalid(f"The answer {words}. The question stays open.", ((at, words),))
        if self.expects is None:
            return
        try:
            schema = JsonSchema(self.expects)
        except ValueError:
            return
        try:
            problems = schema.problems(answer)
        except CheckTooExpensive as error:
            words = f"was not checked by the schema of question {self.id}: {error}"
            raise Invalid(f"The answer {words}. The question stays open.", ((at, words),)) from error
        for problem in problems:
            words = f"does not fit question {self.id}: {problem.message[:MAX_WORDS]}"
            raise Invalid(f"The answer {words}. The question stays open.", ((at, words),))


def answers_of(resume: Any, waiting: Sequence[OpenQuestion]) -> list[tuple[OpenQuestion, Any, str]]:
    """Return (question, answer, JSON pointer of the answer in the request) for each answered question.

    An object whose members are all named by ids is taken as answers by id; answers to questions that are not open are
    ignored. Raises ``Invalid`` for one answer to several questions.
    """
    if isinstance(resume, dict) and resume and all(map(_is_id, resume)):
        return [(one, resume[one.id], f"/command/resume/{one.id}") for one in waiting if one.id in resume]
    if len(waiting) > 1:
        raise Invalid(
            f"{len(waiting)} interrupts wait: answer each by its id, as {{id: answer}}. They are "
            f"{', '.join(one.id for one in waiting)}.",
            (("/command/resume", "needs ids"),),
        )
    return [(one, resume, "/command/resume") for one in waiting]


def _is_id(name: str) -> bool:
    return len(name) == 32 and set(name) <= set("0123456789abcdef")


def named(interrupts: Sequence[Interrupt], run_id: UUID, past: "ResumeState") -> list[Interrupt]:
    """Give ``interrupts`` the ids that clients see: the id of the open question if there is one, else a new one.

    The first question of its kind on a thread has its key as id, by which older versions find the answer. Branches and
    closed questions get new ids.
    """

    def id_of(key: str) -> str:
        if key in past.asked:
            return past.asked[key]
        return uuid5(run_id, key).hex if past.branches or key in past.closed else key

    return [msgspec.structs.replace(one, id=id_of(one.id)) for one in interrupts]


def check_storable(interrupts: Sequence[Interrupt]) -> None:
    """Check that the database holds ``interrupts``, whose values an agent's code makes. Raises ``AgentError``."""
    try:
        text = encode([(one.id, one.value, one.call_id, one.expects) for one in interrupts])
        json_scan.check(text, "A question of this run")
    except UnicodeEncodeError as error:
        raise AgentError("A question of this run has half a character (a lone surrogate). Ask without it.") from error
    except (BadRequest, Invalid) as error:
        raise AgentError(f"{error} Ask without it.") from error


def recorded(interrupts: Sequence[Interrupt], shown: Sequence[Interrupt], requested_by: str | None) -> str:
    """Return the rows of ``interrupts``, which clients see as ``shown``, as JSON for the journal."""
    return encode(
        [
            {
                "id": seen.id,
                "key": one.id,
                "kind": one.kind,
                "call_id": one.call_id or None,
                "expects": one.expects,
                "others_only": one.others_only,
                "requested_by": requested_by,
            }
            for one, seen in zip(interrupts, shown, strict=True)
        ]
    ).decode()


class ResumeState(msgspec.Struct, frozen=True, kw_only=True):
    """What a resumed run must know: ``answers`` by key, open questions (``asked``: key → id), unresolved calls.

    ``closed``: keys of questions that were open and no longer are; ``answered``: ids of those that this run answers. A
    run that ``branches`` off has no open question of its own.
    """

    answers: dict[str, Any] = {}
    asked: dict[str, str] = {}
    closed: frozenset[str] = frozenset()
    answered: tuple[str, ...] = ()
    branches: bool = False
    unresolved_calls: dict[str, list[UnresolvedCall]] = {}


async def load_resume_state(
    database: Database,
    claimed: ClaimedRun,
    given: Mapping[str, Any],
    calls: OpenCalls | None,
    *,
    branches: bool,
    base: UUID | None,
) -> ResumeState:
    """Load what is known of the work that ``claimed`` resumes, in one statement; ``given`` are its answers.

    Unresolved calls are limited to those open in its state (None: any, as its input may open others). Answers count for
    questions that this run closed when it was accepted; a run accepted by an older version closed none. A run that
    ``branches`` off asks again under new ids. ``base``: the checkpoint that it goes on from.
    """
    run = (claimed.tenant_id, claimed.thread_id, claimed.run_id, claimed.crashed_mid_step)
    async with database.tenant_connection(claimed.tenant_id) as connection:
        rows = await connection.fetch(LOAD_RESUME_STATE, *run, *(calls or (None, None)), branches, base)
    answers: dict[str, Any] = {}
    asked: dict[str, str] = {}
    closed: set[str] = set()
    answered: set[str] = set()
    unresolved_calls: dict[str, list[UnresolvedCall]] = {}
    for row in rows:
        if row["is_call"]:
            unresolved_calls.setdefault(row["id"], []).append(
                UnresolvedCall(str(row["run_id"]), row["thread_id"], row["key"])
            )
            continue
        if not row["open"]:
            closed.add(row["key"])
        elif not branches:
            asked[row["key"]] = row["id"]
        if row["open"] or row["run_id"] == claimed.run_id:
            for name in {row["key"], row["id"]} & given.keys():
                answers[row["key"]] = given[name]
                answered.add(row["id"])
    return ResumeState(
        answers=answers,
        asked=asked,
        closed=frozenset(closed),
        answered=tuple(sorted(answered)),
        branches=branches,
        unresolved_calls=unresolved_calls,
    )
