"""A secret is shown by ``reveal`` and by nothing else."""

import copy
import json
import logging
import pickle
import traceback

import msgspec
import pytest

from app.infra.secrets.secret import Secret

CANARY = "canary-8842-zebra"


class Holder(msgspec.Struct):
    key: Secret


@pytest.fixture
def secret() -> Secret:
    return Secret(CANARY)


def test_reveal_gives_the_value(secret: Secret) -> None:
    assert secret.reveal() == CANARY


@pytest.mark.parametrize(
    "show",
    [repr, str, "{}".format, "{:>40}".format, "{!r}".format, lambda s: f"{s}", "{0} {0!s}".format, ascii],
)
def test_no_way_to_print_it_shows_it(secret: Secret, show) -> None:  # type: ignore[no-untyped-def]
    assert CANARY not in show(secret)
    assert "***" in show(secret)


def test_what_holds_it_does_not_show_it(secret: Secret) -> None:
    assert CANARY not in repr([secret, {"key": secret}, Holder(secret)])


def test_a_log_line_does_not_show_it(secret: Secret, caplog: pytest.LogCaptureFixture) -> None:
    logging.getLogger("test").warning("key %s in %r", secret, {"key": secret})
    assert CANARY not in caplog.text


def test_a_traceback_with_its_variables_does_not_show_it(secret: Secret) -> None:
    try:
        raise ValueError(secret)
    except ValueError as error:
        text = "".join(traceback.TracebackException.from_exception(error, capture_locals=True).format())
    assert "secret = Secret(***)" in text
    assert CANARY not in text


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_it_cannot_be_pickled(secret: Secret, protocol: int) -> None:
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(secret, protocol)


@pytest.mark.parametrize("encode", [msgspec.json.encode, msgspec.msgpack.encode, msgspec.to_builtins, json.dumps])
def test_it_cannot_be_encoded(secret: Secret, encode) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(TypeError) as caught:
        encode(secret)
    assert CANARY not in str(caught.value)


def test_it_has_no_state_to_look_at(secret: Secret) -> None:
    assert not hasattr(secret, "__dict__")
    with pytest.raises(TypeError):
        secret.__getstate__()


def test_copies_are_the_secret_itself(secret: Secret) -> None:
    assert copy.copy(secret) is secret
    assert copy.deepcopy({"key": secret})["key"] is secret


def test_two_secrets_are_equal_when_their_values_are(secret: Secret) -> None:
    assert secret == Secret(CANARY)
    assert secret != Secret("canary-8842-zebrä")
    assert secret != CANARY


def test_it_has_no_hash(secret: Secret) -> None:
    with pytest.raises(TypeError, match="unhashable"):
        hash(secret)


def test_an_empty_secret_is_false() -> None:
    assert not Secret("")
    assert Secret("x")
