"""What bounds a provider: deadlines and caps."""

import msgspec


class Deadlines(msgspec.Struct, frozen=True):
    """How long a provider may take, in seconds.

    ``connect`` bounds name look-up, TCP and TLS; ``first_token`` the time from sending a request to the first data of
    its answer; ``gap`` the silence between two pieces of data; ``total`` the whole answer. Comments and half lines are
    no data: a provider that only drips them meets ``first_token`` or ``gap``.
    """

    connect: float = 10.0
    first_token: float = 60.0
    gap: float = 30.0
    total: float = 600.0


class Caps(msgspec.Struct, frozen=True):
    """How much a provider may send, in bytes: in one event or line of a stream, and in a whole answer."""

    line: int = 1 << 20
    total: int = 64 << 20
