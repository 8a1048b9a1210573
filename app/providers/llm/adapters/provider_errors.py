"""What a provider says when it fails, turned into the tree of errors.

A provider's own message is untrusted: it is bounded, stripped of control characters, and words that could show a part
of the key are taken out. Answers of 401 and 403 never quote it, because vendors repeat parts of the key there.
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
from app.infra.secrets.secret import Secret

MESSAGE_CHARACTERS = 200
FRAGMENT_CHARACTERS = 4
"""So many characters of a key in a row, from any place in it, are a part of it that must not be shown."""

REDACTED = "[redacted]"
UNREADABLE = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What decoding a provider's JSON can raise."""

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
"""Codes and types of errors in OpenAI's and Anthropic's wires. Used inside streams, where there is no HTTP status."""


class ErrorDetail(msgspec.Struct):
    """The error object of either wire. ``code`` is a word (OpenAI) or an HTTP status (vLLM)."""

    message: str | None = None
    type: str | None = None
    code: str | int | None = None


class ErrorBody(msgspec.Struct):
    """An error answer: ``error`` is an object, or a sentence (Ollama); some servers put the message at the top."""

    error: ErrorDetail | str | None = None
    message: str | None = None
    detail: str | list[msgspec.Raw] | None = None


_CODE = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,59}")
"""A word that may stand for a kind of error. One that holds a part of the key is not shown."""
_PUBLIC_BEGINNING = re.compile(r"(?:sk|pk)-(?:(?:proj|svcacct|admin|ant|api\d{1,3}|or|v\d{1,2})-){0,3}")

_error_body = msgspec.json.Decoder(ErrorBody).decode


def clean(text: str, limit: int = MESSAGE_CHARACTERS) -> str:
    """``text`` as one printable line of at most ``limit`` characters."""
    printable = "".join(character if character.isprintable() else " " for character in text[: limit * 4])
    return " ".join(printable.split())[:limit]


def quote(text: str | None, key: Secret | None) -> str:
    """``text`` made fit to be shown: words that hold a part of the key, or hide one, are taken out."""
    if not text:
        return ""
    # cleaned first: a control character must not cut a part of the key in two
    words = clean(text, MESSAGE_CHARACTERS * 2).split(" ")
    fragments = _fragments(key)
    return clean(" ".join(REDACTED if _may_show(word, fragments) else word for word in words))


def _may_show(word: str, fragments: frozenset[str]) -> bool:
    if "**" in word:
        return True
    letters = "".join(filter(_in_keys, word)).lower()
    return any(
        letters[at : at + FRAGMENT_CHARACTERS] in fragments for at in range(len(letters) - FRAGMENT_CHARACTERS + 1)
    )


def _fragments(key: Secret | None) -> frozenset[str]:
    """Every run of ``FRAGMENT_CHARACTERS`` characters of the key behind its public beginning (``sk-…-``)."""
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


def complaint_of(body: bytes) -> ErrorDetail | None:
    """The error that a JSON body tells of, or None where it tells of none."""
    try:
        parsed = _error_body(body)
    except UNREADABLE:
        return None
    if isinstance(parsed.error, ErrorDetail):
        return parsed.error
    detail = parsed.detail if isinstance(parsed.detail, str) else None
    message = parsed.error or parsed.message or detail
    return ErrorDetail(message=message) if message else None


def status_error(
    vendor: str, status: int, headers: Mapping[str, str], body: bytes, key: Secret | None = None
) -> ModelError:
    """The error for an answer whose HTTP status is not 200."""
    complaint = complaint_of(body) or ErrorDetail()
    kind = _kind_of_status(status, complaint)
    return kind(_sentence(kind, vendor, complaint, key, status), vendor=vendor, retry_after=retry_after(headers))


def stream_error(vendor: str, complaint: ErrorDetail, key: Secret | None = None) -> ModelError:
    """The error for an error object where an answer was due."""
    code = complaint.code
    if isinstance(code, int) and 400 <= code <= 599:
        kind = _kind_of_status(code, complaint)
    else:
        kind = _kind_of_code(complaint) or ModelUnavailable
    return kind(_sentence(kind, vendor, complaint, key), vendor=vendor)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The seconds that ``Retry-After`` (RFC 9110, 10.2.3) or OpenAI's ``retry-after-ms`` asks to wait, if any."""
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


def _kind_of_code(complaint: ErrorDetail) -> type[ModelError] | None:
    for word in (complaint.code, complaint.type):
        if isinstance(word, str) and word in CODES:
            return CODES[word]
    return None


def _kind_of_status(status: int, complaint: ErrorDetail) -> type[ModelError]:
    if status == 429:
        # A used-up quota answers 429 too, but no waiting mends it: it is the account that is at fault.
        return ModelCredentials if _kind_of_code(complaint) is ModelCredentials else ModelRateLimited
    if status in (401, 402, 403):
        return ModelCredentials
    if status in (408, 504):
        return ModelTimeout
    if status >= 500 or status in (409, 425):
        return ModelUnavailable
    if status >= 300:
        return ModelRejected
    return ModelProtocol


SAYINGS: dict[type[ModelError], str] = {
    ModelCredentials: "does not accept the key or the account",
    ModelProtocol: "gave an answer that is none",
    ModelRateLimited: "limits the rate of requests",
    ModelRejected: "refuses the request",
    ModelTimeout: "took too long by its own account",
    ModelUnavailable: "cannot serve the request now",
}


VARIABLES = {"openai": "OPENAI", "anthropic": "ANTHROPIC"}
"""How the environment variables of vendors begin."""


def address_hint(vendor: str) -> str:
    """What to look at where a server answers, but not as a provider does."""
    if vendor == "openai":
        return "check OPENAI_BASE_URL: does it end in /v1?"
    return f"check {VARIABLES.get(vendor, vendor.upper())}_BASE_URL"


def _sentence(
    kind: type[ModelError], vendor: str, complaint: ErrorDetail, key: Secret | None, status: int | None = None
) -> str:
    words = dict.fromkeys(word for word in (complaint.type, complaint.code) if isinstance(word, str))
    causes = [word for word in words if word in CODES or (_CODE.fullmatch(word) and quote(word, key) == word)]
    causes.insert(0, f"HTTP {status}" if status else "in its stream")
    if status and 300 <= status < 400:
        causes.append("a redirect, which is not followed: check the base URL")
    if status == 404 and not words and complaint.message is None:  # not even an error of a provider
        causes.append(address_hint(vendor))
    sentence = f"{vendor} {SAYINGS[kind]} ({', '.join(causes)})"
    if kind is ModelCredentials and vendor in VARIABLES:
        return f"{sentence}: check {VARIABLES[vendor]}_API_KEY"
    message = "" if kind is ModelCredentials else quote(complaint.message, key)
    return f"{sentence}: {message}" if message else sentence
