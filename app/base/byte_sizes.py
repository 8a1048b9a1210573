"""Parse and format sizes in bytes: ``10GiB``, ``500MB``, ``1048576``."""

import re

UNITS = {"": 1, "B": 1}
UNITS |= {f"{letter}iB": 1024 ** (n + 1) for n, letter in enumerate("KMGTP")}
UNITS |= {f"{letter}B": 1000 ** (n + 1) for n, letter in enumerate("KMGTP")}

_BY_NAME = {name.lower(): factor for name, factor in UNITS.items()}
_SIZE = re.compile(r"(\d{1,18}(?:\.\d{1,9})?)\s?([A-Za-z]{0,3})")


def parse_size(text: str) -> int:
    """Parse a number of bytes, with or without a unit. Raises ``ValueError``."""
    found = _SIZE.fullmatch(text.strip())
    factor = _BY_NAME.get(found[2].lower()) if found else None
    if found is None or factor is None:
        raise ValueError(f"a size is a number of bytes or like 10GiB or 500MB, not {text!r}")
    return int(float(found[1]) * factor) if "." in found[1] else int(found[1]) * factor


def show_size(count: float) -> str:
    """Format a number of bytes in the unit that leaves the fewest digits: ``10 GiB``, ``1.5 MiB``, ``12 bytes``."""
    for letter in "PTGMK":
        factor = UNITS[f"{letter}iB"]
        if count >= factor:
            return f"{f'{count / factor:.2f}'.rstrip('0').rstrip('.')} {letter}iB"
    return f"{count:.0f} bytes"
