"""Prices of models."""

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.base.errors import UsageError

DEFAULTS = Path(__file__).with_name("prices.toml")
ANY = "*"
MILLION = 1_000_000


class Price(NamedTuple):
    """Dollars per million tokens."""

    input: float
    output: float


class Prices:
    """Prices by model name (``vendor:model``); entries of the file ``own`` take precedence.

    Raises ``UsageError`` if the file has no valid prices.
    """

    def __init__(self, own: str = "") -> None:
        self._prices = _read(DEFAULTS) | (_read(Path(own)) if own else {})

    def __iter__(self) -> Iterator[tuple[str, Price]]:
        return iter(self._prices.items())

    def of(self, model: str) -> Price:
        """Return the price of ``model``: that of the longest matching prefix."""
        names = [name for name in self._prices if model.startswith(name)]
        return self._prices[max(names, key=len, default=ANY)]

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> float:
        """Return the dollars for a response's tokens."""
        price = self.of(model)
        return (input_tokens * price.input + output_tokens * price.output) / MILLION


def _read(path: Path) -> dict[str, Price]:
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), dict[str, tuple[float, float]])
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise UsageError(
            f'AGENT_PRICES: {path} is not a price list: write lines like "openai:my-model" = [1.0, 4.0] (dollars '
            "for a million tokens, input and output)"
        ) from error
    if any(not 0 <= part < MILLION for price in found.values() for part in price):
        raise UsageError(f"AGENT_PRICES: {path} has a price that is negative or not below {MILLION:,}: correct it")
    return {name: Price(*price) for name, price in found.items()}
