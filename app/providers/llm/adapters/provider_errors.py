"""Map error responses of providers to ``ModelError`` classes.

A provider's message is untrusted: it is truncated, stripped of control characters, and words that could reveal a part
of the key are redacted. Errors for 401 and 403 never quote it, because vendors repeat parts of the key there.
"""

import math
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

import msgspec

from app.base.errors import (
    ModelCredentials,
    ModelError,
    ModelProtocol,
    ModelRateLimited,
    ModelRejected,
    ModelTimeout,
    ModelUnavailable,
)
from app.base.json_scan import UNREADABLE_JSON
from app.infra.secrets.secret import Secret

MESSAGE_CHARACTERS = 200
FRAGMENT_CHARACTERS = 4
"""This many consecutive characters of a key count as a part of it that must be redacted."""

REDACTED = "[redacted]"
"""Exceptions of decoding a provider's JSON."""

CODES: dict[str, type[ModelError]] = {
    "api_error": ModelUnavailable,
    "authentication_error": ModelCredentials,
    "billing_error": ModelCredentials,
    "content_filter": ModelRejected,
    "content_policy_violation": ModelRejected,
    "context_length_exceeded": ModelRejected,
    "insufficient_quota": ModelCredentials,
    "invalid_api_key": ModelCredentials,
    "invalid_request_error": ModelRejected,
    "not_found_error": ModelRejected,
    "overloaded_error": ModelUnavailable,
    "permission_error": ModelCredentials,
    "rate_limit_error": ModelRateLimited,
    "rate_limit_exceeded": ModelRateLimited,
    "request_too_large": ModelRejected,
    "server_error": ModelUnavailable,
    "string_above_max_length": ModelRejected,
    "timeout_error": ModelTimeout,
    "tool_use_failed": ModelRejected,
}
"""Error codes and types of OpenAI's and Anthropic's APIs. Used inside streams, where there is no HTTP status."""


class Provider(msgspec.Struct, frozen=True, kw_only=True):
    """A provider as errors name it. ``key`` is redacted.

    ``key_variable`` and ``address_hint``: what to check if it refuses the key, or responds but not as a provider does.
    """

    vendor: str
    key: Secret | None = None
    key_variable: str = ""
    address_hint: str = "check the base URL"


class ErrorDetail(msgspec.Struct):
    """The error object of either API. ``code`` is a word (OpenAI) or an HTTP status (vLLM)."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class ErrorBody(msgspec.Struct):
    """An error body: ``error`` is an object, or a sentence (Ollama); some servers have a top-level message."""

    error: ErrorDetail | str | None = None
    message: str | None = None
    detail: str | list[msgspec.Raw] | None = None


_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
"""An error code as a provider writes it. It is not shown if it contains a part of the key."""
_PUBLIC_BEGINNING = re.compile(r"(?:sk|pk)-(?:(?:proj|svcacct|admin|ant|api\d{1,3}|or|v\d{1,2})-){0,3}")

_error_body = msgspec.json.Decoder(ErrorBody).decode


def clean(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """Return ``text`` as one printable line of at most ``limit`` characters."""
    printable = "".join(character if character.isprintable() else " " for character in text[: limit * 4])
    return " ".join(printable.split())[:limit]


def quote(text: str | None, key: Secret | None) -> str:
    """Clean ``text`` and redact words that contain, or mask, a part of the key."""
    if not text:
        return ""
    # clean first: a control character could split a part of the key
    words = clean(text, MESSAGE_CHARACTERS * 2).split(" ")
    fragments = _fragments(key)
    return clean(" ".join(REDACTED if _may_reveal(word, fragments) else word for word in words))


def _may_reveal(word: str, fragments: frozenset[str]) -> bool:
    if "**" in word:
        return True
    letters = "".join(filter(_in_keys, word)).lower()
    return any(
        letters[at : at + FRAGMENT_CHARACTERS] in fragments for at in range(len(letters) - FRAGMENT_CHARACTERS + 1)
    )


def _fragments(key: Secret | None) -> frozenset[str]:
    """Return all substrings of ``FRAGMENT_CHARACTERS`` characters of the key after its public prefix (``sk-…-``)."""
    if key is None:
        return frozenset()
    secret = key.reveal()
    known = _PUBLIC_BEGINNING.match(secret)
    letters = "".join(filter(_in_keys, secret[known.end() if known else 0 :])).lower()
    return frozenset(
        letters[at : at + FRAGMENT_CHARACTERS] for at in range(max(1, len(letters) - FRAGMENT_CHARACTERS + 1))
    )


def _in_keys(character: str) -> bool:
    return character.isalnum() or character in "-_"


def error_detail_of(body: bytes) -> ErrorDetail | None:
    """Parse the error object of a JSON body; None if it has none."""
    try:
        parsed = _error_body(body)
    except UNREADABLE_JSON:
        return None
    if isinstance(parsed.error, ErrorDetail):
        return parsed.error
    detail = parsed.detail if isinstance(parsed.detail, str) else None
    message = parsed.error or parsed.message or detail
    return ErrorDetail(message=message) if message else None


def status_error(provider: Provider, status: int, headers: Mapping[str, str], body: bytes) -> ModelError:
    """Return the error for a response whose HTTP status is not 200."""
    detail = error_detail_of(body) or ErrorDetail()
    kind = _kind_of_status(status, detail)
    return kind(_sentence(kind, provider, detail, status), vendor=provider.vendor, retry_after=retry_after(headers))


def stream_error(provider: Provider, detail: ErrorDetail) -> ModelError:
    """Return the error for an error object in a stream or a 200 response."""
    code = detail.code
    if isinstance(code, int) and 400 <= code <= 599:
        kind = _kind_of_status(code, detail)
    else:
        kind = _kind_of_code(detail) or ModelUnavailable
    return kind(_sentence(kind, provider, detail), vendor=provider.vendor)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Return the seconds of ``Retry-After`` (RFC 9110, 10.2.3) or OpenAI's ``retry-after-ms``, if any."""
    for name, unit in (("retry-after-ms", 0.001), ("Retry-After", 1.0)):
        value = headers.get(name)
        if value is None:
            continue
        try:
            seconds = float(value) * unit
        except ValueError:
            seconds = _until(value)
        if math.isfinite(seconds) and seconds >= 0:
            return seconds
    return None


def _until(date: str) -> float:
    try:
        moment = parsedate_to_datetime(date)
    except ValueError:
        return -1.0
    return max(0.0, (moment.replace(tzinfo=moment.tzinfo or UTC) - datetime.now(UTC)).total_seconds())


def _kind_of_code(detail: ErrorDetail) -> type[ModelError] | None:
    for word in (detail.code, detail.type):
        if isinstance(word, str) and word in CODES:
            return CODES[word]
    return None


def _kind_of_status(status: int, detail: ErrorDetail) -> type[ModelError]:
    if status == 429:
        # An exhausted quota is also a 429, but waiting does not fix it: the account needs attention.
        return ModelCredentials if _kind_of_code(detail) is ModelCredentials else ModelRateLimited
    if status in (401, 402, 403):
        return ModelCredentials
    if status in (408, 504):
        return ModelTimeout
    if status >= 500 or status in (409, 425):
        return ModelUnavailable
    if status >= 300:
        return ModelRejected
    return ModelProtocol


SENTENCES: dict[type[ModelError], str] = {
    ModelCredentials: "does not accept the key or the account",
    ModelProtocol: "sent an invalid answer",
    ModelRateLimited: "limits the rate of requests",
    ModelRejected: "refuses the request",
    ModelTimeout: "reports a timeout",
    ModelUnavailable: "cannot serve the request now",
}


def _sentence(kind: type[ModelError], provider: Provider, detail: ErrorDetail, status: int | None = None) -> str:
    words = dict.fromkeys(word for word in (detail.type, detail.code) if isinstance(word, str))
    causes = [word for word in words if word in CODES or (_CODE.fullmatch(word) and quote(word, provider.key) == word)]
    causes.insert(0, f"HTTP {status}" if status else "in its stream")
    if status and 300 <= status < 400:
        causes.append("a redirect, which is not followed: check the base URL")
    if status == 404 and not words and detail.message is None:  # not an error of a provider's API
        causes.append(provider.address_hint)
    sentence = f"{provider.vendor} {SENTENCES[kind]} ({', '.join(causes)})"
    if kind is ModelCredentials and provider.key_variable:
        return f"{sentence}: check {provider.key_variable}"
    message = "" if kind is ModelCredentials else quote(detail.message, provider.key)
    return f"{sentence}: {message}" if message else sentence
