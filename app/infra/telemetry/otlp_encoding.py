"""Encode spans as OTLP protobuf: https://github.com/open-telemetry/opentelemetry-proto (trace/v1/trace.proto).

Written by hand because it happens many times per run: 1 µs per span, against 34 for building and serializing messages.
"""

import struct
from collections.abc import Iterable, Mapping
from functools import lru_cache

from app.infra.telemetry.tracing import Span, SpanTemplate, Value

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5  # wire types
_ERROR_STATUS = b"\x7a\x02\x18\x02"  # field 15: Status {code (3): ERROR (2)}
_ATTRIBUTE = 9
_MAX_CACHED_LENGTH = 96
"""Length in bytes below which the prefix of a text value is cached."""
_FIRST = struct.Struct("<2s16s2s8scQcQ").pack
_BELOW = struct.Struct("<2s16s2s8s2s8scQcQ").pack
_DOUBLE = struct.Struct("<d").pack
_FLAGS = b"\x85\x01" + struct.pack("<I", 0x01)  # field 16: sampled


def _varint(number: int) -> bytes:
    if 0 <= number < 0x80:
        return bytes((number,))
    out = bytearray()
    number &= (1 << 64) - 1
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


_SMALL = tuple(_varint(number) for number in range(4096))


def _length(count: int) -> bytes:
    return _SMALL[count] if count < len(_SMALL) else _varint(count)


@lru_cache(64)
def _tag(field: int, wire: int) -> bytes:
    return _varint(field << 3 | wire)


def _part(field: int, data: bytes) -> bytes:
    return _tag(field, _BYTES) + _length(len(data)) + data


def _any(value: Value) -> bytes:
    """Encode an AnyValue."""
    if isinstance(value, str):
        return _part(1, value.encode("utf-8", "backslashreplace"))
    if isinstance(value, bool):
        return _tag(2, _VARINT) + _varint(value)
    if isinstance(value, int):
        return _tag(3, _VARINT) + _varint(value)
    if isinstance(value, float):
        return _tag(4, _FIXED64) + _DOUBLE(value)
    return _part(5, b"".join(_part(1, _any(one)) for one in value))


def _pair(field: int, key: str, value: Value) -> bytes:
    return _part(field, _part(1, key.encode()) + _part(2, _any(value)))


@lru_cache(4096, typed=True)  # 1 and True are not the same
def _attribute(key: str, value: Value) -> bytes:
    return _pair(_ATTRIBUTE, key, value)


class _AttributeKey:
    """Cached prefixes of one attribute's values, for texts by length, and for numbers."""

    __slots__ = ("_key", "double", "text")

    def __init__(self, key: str) -> None:
        self._key = _part(1, key.encode())
        self.text = tuple(self._before(_tag(1, _BYTES) + _SMALL[count], count) for count in range(_MAX_CACHED_LENGTH))
        self.double = self._before(_tag(4, _FIXED64), 8)

    def _before(self, value: bytes, rest: int) -> bytes:
        """Return the prefix of an AnyValue that begins with ``value`` and has ``rest`` more bytes."""
        pair = self._key + _tag(2, _BYTES) + _varint(len(value) + rest) + value
        return _tag(_ATTRIBUTE, _BYTES) + _varint(len(pair) + rest) + pair


class _AttributeKeys(dict[str, _AttributeKey]):
    """Cache of attribute keys; their number is bounded, as names are in the code."""

    def __missing__(self, key: str) -> _AttributeKey:
        self[key] = made = _AttributeKey(key)
        return made


_keys = _AttributeKeys()


def _common(template: SpanTemplate, max_length: int) -> bytes:
    """Encode what all spans of ``template`` have in common."""
    parts = [_part(5, template.name.encode("utf-8", "backslashreplace")), _tag(6, _VARINT), _varint(template.kind)]
    for key, value in template.attributes:
        cut = value[:max_length] if max_length and isinstance(value, str) else value
        parts.append(_pair(_ATTRIBUTE, key, cut))
    return b"".join((*parts, _FLAGS))


def encoded(span: Span, max_length: int = 0) -> bytes:
    """Encode ``span`` as an element of ScopeSpans; texts are truncated to ``max_length`` characters (0: not).

    ``max_length`` must be the same in every call, since encoded parts are cached.
    """
    template = span.template
    common = template.encoded
    if not common:
        common = template.encoded = _common(template, max_length)
    trace_id, span_id, _ = span.context
    started_at, ended = span.started_at, span.ended
    if span.parent is None:
        head = _FIRST(b"\n\x10", trace_id, b"\x12\b", span_id, b"9", started_at, b"A", ended)
    else:
        parent_id = span.parent[1]
        head = _BELOW(b"\n\x10", trace_id, b"\x12\b", span_id, b'"\b', parent_id, b"9", started_at, b"A", ended)
    if not span.attributes:  # without attributes there is no error
        return b"".join((b"\x12", _length(len(head) + len(common)), head, common))
    parts = [head, common]
    for key, value in span.attributes.items():
        if isinstance(value, str):
            text = value[:max_length] if max_length else value
            data = text.encode("utf-8", "backslashreplace")
            parts += (
                (_keys[key].text[len(data)], data)
                if len(data) < _MAX_CACHED_LENGTH
                else (_pair(_ATTRIBUTE, key, text),)
            )
        elif isinstance(value, float):
            parts += (_keys[key].double, _DOUBLE(value))
        else:
            parts.append(_attribute(key, value))
    if span.error:
        parts.append(_ERROR_STATUS)
    data = b"".join(parts)
    return b"".join((b"\x12", _length(len(data)), data))


class OtlpEnvelope:
    """The resource and scope of the spans of one process in a request."""

    def __init__(self, resource: Mapping[str, Value], scope: str, version: str, schema_url: str) -> None:
        self._resource = _part(1, b"".join(_pair(1, key, value) for key, value in resource.items()))
        self._scope = _part(1, _part(1, scope.encode()) + _part(2, version.encode()))
        self._schema = _part(3, schema_url.encode())

    def around(self, spans: Iterable[bytes]) -> bytes:
        """Return an ExportTraceServiceRequest of encoded ``spans``."""
        scope_spans = _part(2, self._scope + b"".join(spans) + self._schema)
        return _part(1, self._resource + scope_spans + self._schema)
