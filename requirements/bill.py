"""Write the bill of materials (CycloneDX) of the image: its installed packages, and vendored libraries.

Usage, in the environment that has the packages: python -m requirements.bill FILE
"""

import json
import sys
import tomllib
from pathlib import Path

from requirements.audit import HERE, SHIPPED, bill, pinned, vendored, with_licence


def main(out: str) -> int:
    """Write the bill of materials to ``out``."""
    rules = tomllib.loads((HERE / "licences.toml").read_text(encoding="utf-8"))
    project = tomllib.loads((HERE.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = pinned((HERE / SHIPPED).read_text(encoding="utf-8"))
    here = [package for package in (with_licence(one, rules) for one in locked) if package.licence]
    Path(out).write_text(json.dumps(bill([*here, *vendored()], project["version"]), indent=1) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
