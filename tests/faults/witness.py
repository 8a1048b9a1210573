"""An independent process with a ledger of tool effects and a fake model that records its requests.

``python -m tests.faults.witness FILE RATE`` prints their addresses. An effect is synced to FILE before its tool gets
the response. Effects and model requests share one counter, which gives their order. RATE of the model requests fail
with errors that are retried.
"""

import asyncio
import itertools
import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Any

from aiohttp import web

from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import PLAYS, REFUSALS, Fault, Replay, Stage, error
from tests.llm.wires import Say, events

TROUBLES = (Fault.RATE_LIMITED, Fault.SERVER_ERROR, Fault.OVERLOADED, Fault.CUT_BEFORE_HEADERS)


class Model(FakeProvider):
    """Replies with the next tool call of the program in the last user message, and at its end with text.

    ``rate`` of the requests fail, each at most once.
    """

    def __init__(self, counter: "itertools.count[int]", rate: float) -> None:
        super().__init__(models=["program"])
        self.counter = counter
        self.asked: list[dict[str, Any]] = []
        self.refused: set[tuple[str, int]] = set()
        self._rate = rate
        self._rng = random.Random(1)

    async def _play(self, stage: Stage) -> web.StreamResponse:
        messages = self.requests[-1].body["messages"]
        last = max(n for n, message in enumerate(messages) if message["role"] == "user")
        program = json.loads(messages[last]["content"])
        done = sum(message["role"] == "tool" for message in messages[last:])
        if (program["id"], done) not in self.refused and self._rng.random() < self._rate:
            self.refused.add((program["id"], done))
            return await self._refuse(stage)
        asked = {"at": next(self.counter), "program": program["id"], "step": done}
        caller = self.requests[-1].headers.get("Authorization", "").removeprefix("Bearer ")
        self.asked.append({**asked, "received_at": time.monotonic(), "by": caller})
        if done < len(program["ops"]):
            name, n = program["ops"][done]
            reply = Say(text=f"{program['id']} {done}", calls=[(name, json.dumps({"n": n}))])
        else:
            reply = Say(text=f"done {program['id']}")
        return await stage.send(Replay(data=b"".join(events(stage.vendor, reply)), piece=reply.piece))

    async def _refuse(self, stage: Stage) -> web.StreamResponse:
        trouble = self._rng.choice(TROUBLES)
        if trouble not in REFUSALS:
            return await PLAYS[trouble](stage)
        status, message, headers = REFUSALS[trouble]
        return web.json_response(**error(stage.vendor, status, message), headers=headers)


class Ledger:
    """Ledger of effects, in a file and in memory."""

    def __init__(self, path: Path, counter: "itertools.count[int]") -> None:
        self._file = path.open("ab")
        self._counter = counter
        self.effects: list[dict[str, Any]] = []

    async def write(self, request: web.Request) -> web.Response:
        effect = {"at": next(self._counter), "received_at": time.monotonic(), **await request.json()}
        self._file.write(json.dumps(effect).encode() + b"\n")
        self._file.flush()
        os.fsync(self._file.fileno())
        self.effects.append(effect)
        return web.json_response({})

    async def read(self, request: web.Request) -> web.Response:
        key = request.query["key"]
        return web.json_response({"count": sum(effect["key"] == key for effect in self.effects)})


async def main(path: Path, rate: float) -> None:
    counter = itertools.count()
    ledger = Ledger(path, counter)
    async with Model(counter, rate) as model:

        async def report(_: web.Request) -> web.Response:
            return web.json_response({"effects": ledger.effects, "asked": model.asked, "refused": list(model.refused)})

        app = web.Application()
        app.router.add_post("/effects", ledger.write)
        app.router.add_get("/effects", ledger.read)
        app.router.add_get("/", report)
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sys.stdout.write(f"http://127.0.0.1:{runner.addresses[0][1]} {model.url}/v1\n")
        sys.stdout.flush()
        await asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)  # until the parent has exited
        await runner.cleanup()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), float(sys.argv[2])))
