"""What models cost."""

import tomllib
from pathlib import Path
from typing import NamedTuple

import msgspec

from app.base.errors import UsageError

HERE = Path(__file__).with_name("prices.toml")
ANY = "*"
MILLION = 1_000_000


class Price(NamedTuple):
    """Dollars for a million tokens."""

    input: float
    output: float


class Prices:
    """Prices by the name of a model (``vendor:model``); ``own`` is a file whose entries come before ours.

    Raises ``UsageError`` for a file that has no prices.
    """

    def __init__(self, own: str = "") -> None:
        self._prices = _read(HERE) | (_read(Path(own)) if own else {})

    def of(self, model: str) -> Price:
        """The price of ``model``: that of the longest name it begins with."""
        names = [name for name in self._prices if model.startswith(name)]
        return self._prices[max(names, key=len, default=ANY)]

    def cost(self, model: str, input_tokens: int, output_tokens: int) -> float:
        """Dollars for the tokens of an answer."""
        price = self.of(model)
        return (input_tokens * price.input + output_tokens * price.output) / MILLION


def _read(path: Path) -> dict[str, Price]:
    try:
        found = msgspec.convert(tomllib.loads(path.read_text("utf-8")), dict[str, tuple[float, float]])
    except (OSError, ValueError, msgspec.ValidationError) as error:
        raise UsageError(
            f'AGENT_PRICES: {path} has no prices of models: write lines like "openai:my-model" = [1.0, 4.0] (dollars '
            "for a million tokens, input and output)"
        ) from error
    if any(not 0 <= part < MILLION for price in found.values() for part in price):
        raise UsageError(f"AGENT_PRICES: {path} has a price below 0 or beyond all reason")
    return {name: Price(*price) for name, price in found.items()}
