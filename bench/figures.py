"""Results of a benchmark run, as stored in ``bench/results/``."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import msgspec

HELLO, FRAMES = "floor: Litestar hello", "floor: ready frames"
GROUP, ALONE = "floor: group commit", "floor: single commits"
OK, ECHO, STREAM = "ok", "echo wait", "stream100"
"""The scenarios."""


class Load(msgspec.Struct, kw_only=True):
    """A closed loop: clients that send the next request after each response. CPU in microseconds per operation."""

    scenario: str
    clients: int
    operations: int
    seconds: float
    per_second: float
    events_per_second: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    first_p50_ms: float
    """From the request to the first byte of the body; of a stream, its first event."""
    token_p50_ms: float
    """From the request to the first token of a stream."""
    server_us: float
    """CPU of all server processes; without a server, of the program."""
    postgres_us: float
    client_us: float
    errors: list[str]
    """One message per failed request."""
    rates: list[float] = []
    """Operations per second of every round; the other figures are those of the median round."""

    @property
    def event_us(self) -> float:
        """CPU of the server per event of a stream."""
        return self.server_us * self.per_second / self.events_per_second


class Paced(msgspec.Struct, kw_only=True):
    """An open loop: requests at a fixed rate. Latency counts from the scheduled time."""

    scenario: str
    share: float
    """Share of the maximum measured rate."""
    rate: float
    achieved: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    client_us: float
    """CPU of the client per request."""
    errors: list[str]


class Growth(msgspec.Struct, kw_only=True):
    """A thread of many short turns."""

    turns: int
    threads: int
    """How many were measured, for the medians."""
    early_ms: float
    """Median duration of turns around turn 10, without the thread's values in the response."""
    late_ms: float
    """The same around the last turn."""
    stored_bytes: int
    """Rows of one thread's checkpoints and their items."""
    state_bytes: int
    """The thread's values as JSON."""
    read_ms: float
    """The median of reading the last state."""
    read_statements: int
    """Statements of one such read that fetch parts of the state."""
    read_round_trips: int
    """All its statements: also the transaction's begin, scope and end."""


class Start(msgspec.Struct, kw_only=True):
    """Durations from a command to the first good response. Memory of all its processes, idle, in MB of 10⁶."""

    command: str
    seconds: list[float]
    rss_mb: float = 0.0
    """Resident, shared pages counted in every process."""
    pss_mb: float = 0.0
    """Resident, shared pages counted once."""

    @property
    def median(self) -> float:
        """Median seconds."""
        return statistics.median(self.seconds)


class Machine(msgspec.Struct, kw_only=True):
    """The machine, and its other load."""

    cpu: str
    cores: int
    memory_gb: float
    system: str
    python: str
    postgres: str
    fsync: str
    revision: str
    """Of the sources; empty outside a repository."""
    load_before: float
    """Load average of the minute before."""
    stolen: float
    """The share of CPU time that the host gave to other machines during the run."""


class Result(msgspec.Struct, kw_only=True):
    """One run of the benchmark."""

    at: str
    quick: bool
    took_s: float
    machine: Machine
    loads: list[Load]
    paced: list[Paced]
    growth: Growth
    starts: list[Start]
    token_bytes: float
    """Bytes on the wire of one token's event, framing included."""

    def load(self, scenario: str, clients: int) -> Load:
        """The figures of one scenario."""
        return next(one for one in self.loads if (one.scenario, one.clients) == (scenario, clients))

    def start(self, command: str) -> Start:
        """The starts of one command."""
        return next(one for one in self.starts if one.command == command)

    def failures(self) -> list[str]:
        """Return a message per scenario with failed requests."""
        every: list[Load | Paced] = [*self.loads, *self.paced]
        return [f"{one.scenario}: {len(one.errors)} failed, first: {one.errors[0]}" for one in every if one.errors]


def quantile(seconds: Iterable[float], share: float) -> float:
    """Return a quantile in milliseconds; 0 without measurements."""
    ordered = sorted(seconds)
    return round(ordered[min(len(ordered) - 1, int(share * len(ordered)))] * 1000, 3) if ordered else 0.0


def median_round(rounds: Sequence[Load]) -> Load:
    """Return the round with the median rate, with the rates and errors of all rounds."""
    chosen = sorted(rounds, key=lambda one: one.per_second)[len(rounds) // 2]
    errors = [error for one in rounds for error in one.errors]
    return msgspec.structs.replace(chosen, errors=errors, rates=[one.per_second for one in rounds])


def read(path: Path) -> Result:
    """Read a stored result. Raises ``msgspec.DecodeError`` if the file is invalid."""
    return msgspec.json.decode(path.read_bytes(), type=Result)


def write(result: Result, folder: Path) -> Path:
    """Store ``result`` in a file named by its time."""
    folder.mkdir(exist_ok=True)
    path = folder / f"{result.at.replace(':', '').replace('-', '')}.json"
    path.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    return path
