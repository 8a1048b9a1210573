"""``python -m bench.llm_clients``: aiohttp against httpx on the token path, with the same reader and the same decoder.

A server of its own process streams chunks in OpenAI's wire to sixteen calls at once; counted is this process's CPU time
for each chunk, on the event loop of the product. *Burst*: the server writes as fast as it can, so that one read carries
many chunks. *Paced*: a chunk every few milliseconds and so a read for each, as from a model that speaks. Bounded: a
fixed number of streams for each client, in turn, three rounds.
"""

import asyncio
import json
import multiprocessing
import os
import socket
import statistics
import time
from collections.abc import Awaitable, Callable

import aiohttp
import httpx
import msgspec
import uvloop

from app.providers.llm.adapters.http_client import Endpoint
from app.providers.llm.adapters.http_client import HttpClient as OurClient
from app.providers.llm.adapters.openai import CompletionChunk, OpenAIModel
from app.providers.llm.port import ModelRequest

AT_ONCE, CHUNKS, ROUNDS = 16, 200, 3
STREAMS = {"burst": 160, "paced": 32}
PACE = 0.003
"""Seconds between two chunks of a paced stream."""

Read = Callable[[str], Awaitable[int]]


def body() -> bytes:
    pieces = [
        json.dumps(
            {
                "id": "c",
                "object": "chat.completion.chunk",
                "model": "m",
                "choices": [{"index": 0, "delta": {"content": f"tok{n} "}, "finish_reason": None}],
            }
        )
        for n in range(CHUNKS)
    ]
    end = json.dumps({"id": "c", "model": "m", "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
    return b"".join(f"data: {piece}\n\n".encode() for piece in [*pieces, end]) + b"data: [DONE]\n\n"


def serve(listener: socket.socket) -> None:
    events = body().split(b"\n\n")[:-1]

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            try:
                head = await reader.readuntil(b"\r\n\r\n")
            except asyncio.IncompleteReadError:
                writer.close()
                return
            pause = PACE if b"/paced/" in head else 0
            length = next(int(h.split(b":")[1]) for h in head.split(b"\r\n") if h.lower().startswith(b"content-length"))
            await reader.readexactly(length)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n")
            for event in events:
                whole = event + b"\n\n"
                writer.write(b"%x\r\n%b\r\n" % (len(whole), whole))
                await writer.drain()
                await asyncio.sleep(pause)
            writer.write(b"0\r\n\r\n")

    async def run() -> None:
        server = await asyncio.start_server(answer, sock=listener)
        await server.serve_forever()

    asyncio.run(run())


async def drive(read: Read, url: str) -> float:
    """CPU µs of this process for each chunk."""
    turns = asyncio.Semaphore(AT_ONCE)
    streams = STREAMS["paced" if "/paced/" in url else "burst"]

    async def one() -> int:
        async with turns:
            return await read(url)

    started_at = time.process_time()
    counts = await asyncio.gather(*(one() for _ in range(streams)))
    used = time.process_time() - started_at
    assert all(count >= CHUNKS for count in counts), counts
    return used / sum(counts) * 1e6


decode = msgspec.json.Decoder(CompletionChunk).decode


def payloads(buffer: bytes) -> tuple[list[bytes], bytes]:
    *whole, rest = buffer.split(b"\n\n")
    return [event[6:] for event in whole if event.startswith(b"data: {")], rest


async def with_aiohttp(url: str) -> float:
    async with aiohttp.ClientSession() as session:

        async def read(address: str) -> int:
            count, rest = 0, b""
            async with session.post(address, data=b"{}") as answer:
                async for part in answer.content.iter_any():
                    found, rest = payloads(rest + part)
                    count += len([decode(payload) for payload in found])
            return count

        return await drive(read, url)


async def with_httpx(url: str) -> float:
    async with httpx.AsyncClient() as client:

        async def read(address: str) -> int:
            count, rest = 0, b""
            async with client.stream("POST", address, content=b"{}") as answer:
                async for part in answer.aiter_raw():
                    found, rest = payloads(rest + part)
                    count += len([decode(payload) for payload in found])
            return count

        return await drive(read, url)


async def with_adapter(url: str) -> float:
    http = OurClient()
    model = OpenAIModel("m", http, Endpoint(vendor="openai", base_url=url.rpartition("/chat")[0]))

    async def read(_: str) -> int:
        return len([event async for event in model.stream(ModelRequest(messages=[]))])

    try:
        return await drive(read, url)
    finally:
        await http.aclose()


CLIENTS = {"aiohttp": with_aiohttp, "httpx": with_httpx, "our whole adapter on aiohttp": with_adapter}


def measure(manner: str, origin: str) -> None:
    """Run every client in turn and print its figures."""
    seen: dict[str, list[float]] = {name: [] for name in CLIENTS}
    for _ in range(ROUNDS):
        for name, client in CLIENTS.items():
            seen[name].append(uvloop.run(client(f"{origin}/{manner}/chat/completions")))
    floor = statistics.median(seen["aiohttp"])
    print(f"{manner}: {STREAMS[manner]} streams of {CHUNKS} chunks, {AT_ONCE} at once, {os.cpu_count()} cores")
    for name, figures in seen.items():
        middle = statistics.median(figures)
        spread = f"{min(figures):.1f} to {max(figures):.1f}"
        print(f"{name:<30}{middle:>7.1f} µs a chunk ({spread}), {middle / floor:.2f} × aiohttp")


def main() -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    server = multiprocessing.get_context("fork").Process(target=serve, args=(listener,), daemon=True)
    server.start()
    try:
        for manner in STREAMS:
            measure(manner, f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.terminate()
        server.join()


if __name__ == "__main__":
    main()
