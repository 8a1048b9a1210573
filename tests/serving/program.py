"""A test server, ``python -m tests.serving.program``: the real parent and workers with a tiny application.

Its argument is JSON: ``port``, ``workers``, ``grace``, ``drain``, ``close`` and ``idle`` (seconds), a ``source`` to
watch, and faults: ``fails`` (a message), ``raises``, ``hangs``, and ``broken`` and ``slow`` (while the named file
exists). ``says``: the kind of garbage that ``/say`` writes to the pipes of its parent.
"""

import asyncio
import contextlib
import json
import os
import sys
import threading
import time
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from app.base.errors import AgentServiceError, StartError
from app.cli.dev import SourceWatcher
from app.server.parent import ParentProcess
from app.server.parent_log import parent_logger
from app.server.sockets import listen
from app.server.worker_context import WorkerContext
from app.server.worker_renewal import ReplacementPolicy

path: ContextVar[str] = ContextVar("path", default="")


class Tiny:
    """``/pid`` responds, ``/stream`` ends when drained, ``/exit`` exits the worker.

    ``/stuck`` and ``/held`` block it forever, ``/refuse`` starts a task that ignores cancellation, ``/print`` prints.
    """

    def __init__(self, options: dict[str, Any]) -> None:
        self._options = options
        self._broken = "broken" in Path(options["source"]).read_text() if "source" in options else False
        self._draining = False
        self._drained = asyncio.Event()

    async def open(self) -> None:
        if reason := self._options.get("fails"):
            raise StartError(reason)
        if self._broken:
            raise StartError("the source is broken")
        if is_there(self._options.get("broken")):
            raise StartError("the configuration is broken")
        if is_there(self._options.get("slow")):
            say("opening")
            await asyncio.to_thread(wait_for_removal, self._options["slow"])
        if self._options.get("raises"):
            raise ZeroDivisionError("of this kind")

    def reload(self) -> None:
        say("reload")

    async def retire(self) -> None:
        say("retire")

    async def drain(self) -> None:
        say("drain")
        self._draining = True
        await asyncio.sleep(self._options.get("drain", 0))
        self._drained.set()
        if self._options.get("hangs"):
            await asyncio.Event().wait()

    async def close(self) -> None:
        say("close")

    def busy(self) -> str:
        return path.get()

    def about(self) -> dict[str, str]:
        return {"pid": str(os.getpid())}

    async def metrics(self, scope: Any, receive: Any, send: Any) -> None:
        await self.asgi(scope, receive, send)

    async def asgi(self, scope: Any, receive: Any, send: Any) -> None:
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]}
        path.set(scope["path"])
        if scope["path"] == "/exit":
            os._exit(7)
        if scope["path"] == "/stuck":
            say("stuck")
            while True:
                pass
        if scope["path"] == "/held":
            hold()
        if scope["path"] == "/say":
            for pipe in self._options["pipes"]:
                threading.Thread(target=garble, args=(pipe, self._options["says"]), daemon=True).start()
        if scope["path"] == "/refuse":
            self._refusing = asyncio.create_task(refuse(), name="refuses")
            await asyncio.sleep(0)
        if scope["path"] == "/print":
            print("printed")  # noqa: T201
        await send(start)
        if scope["path"] == "/stream":
            await send({"type": "http.response.body", "body": b"event: first\r\n\r\n", "more_body": True})
            await self._drained.wait()
            await send({"type": "http.response.body", "body": b"retry: 1000\r\n\r\n"})
            return
        body = {"pid": os.getpid(), "parent": os.getppid(), "draining": self._draining, "said": True}
        await send({"type": "http.response.body", "body": json.dumps(body).encode()})


async def refuse() -> None:
    while True:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()


GARBAGE = {
    "nonsense": b"\xff\x00{]\n",
    "lines": b'null\n"x"\n[]\n3\n{}\n\n{"ready": 1}\n{"failed": {}}\n{"alive": "x"}\n{"busy": [1]}\n',
    "flood": b"x" * 60_000,
    "deep": b"[" * 15_000 + b"\n",
    "types": b'{"ready": {"level": 1, "a b": "x", "event": "\\u001b[2J\\ud800"}}\n{"failed": "\\n\\n", "usage": 7}\n',
}


def garble(pipe: int, kind: str) -> None:
    for _ in range(4 if kind == "flood" else 40):  # a flood is read slowly
        os.write(pipe, GARBAGE[kind])


def is_there(file: str | None) -> bool:
    return file is not None and Path(file).exists()


def wait_for_removal(file: str) -> None:
    while is_there(file):
        time.sleep(0.01)


def hold() -> None:
    threading.Event().wait()


def say(line: str) -> None:
    os.write(1, f"{line}\n".encode())


def main(options: dict[str, Any]) -> int:
    def work(context: WorkerContext) -> int:
        options["pipes"] = (context.pipes.link, context.pipes.stacks)
        from app.infra.telemetry.logs import set_up
        from app.server import granian_internals, worker

        lines = set_up()
        worker.CLOSE_SECONDS = options.get("close", worker.CLOSE_SECONDS)
        granian_internals.IDLE_SECONDS = options.get("idle", granian_internals.IDLE_SECONDS)
        try:
            return worker.run(lambda: Tiny(options), context)
        finally:
            lines.flush()

    try:
        listeners = listen("127.0.0.1", options["port"], options.get("workers", 1))
        parent = ParentProcess(listeners, work, grace=options.get("grace", 10), say=parent_logger("json"))
        if source := options.get("source"):
            parent.changed = SourceWatcher([Path(source).parent], [Path(source)]).found
        parent.renewal = ReplacementPolicy(**options.get("renewal", {}))
        parent.on_ready = lambda about: say(f"ready {about['pid']}")
        return parent.run()
    except AgentServiceError as error:
        say(f"tiny: {error}")
        return 1


if __name__ == "__main__":
    sys.exit(main(json.loads(sys.argv[1])))
