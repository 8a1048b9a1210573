"""``make bench``: the server against the floors of this machine, in one run (docs/explanation/performance.md).

One worker, the embedded PostgreSQL with fsync on, a lean client in this process. Absolute figures drift from
machine to machine and from hour to hour: compare ratios. Results are written to ``bench/results/``.
"""

import argparse
import sys
from pathlib import Path

from bench import figures
from bench.drawing import PICTURE, draw
from bench.measuring import measure
from bench.report import PAGE, page, tables

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Measure, or render a stored result; return 1 if a request failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="Measure the server against its floors.")
    parser.add_argument(
        "--quick", action="store_true", help="under a minute instead of some four; figures that scatter"
    )
    given = parser.add_mutually_exclusive_group()
    given.add_argument("--table", type=Path, metavar="FILE.json", help="print the tables of a result")
    given.add_argument(
        "--draw", type=Path, metavar="FILE.json", help=f"draw a result into docs/explanation/{PICTURE.name}"
    )
    given.add_argument(
        "--write-docs", type=Path, metavar="FILE.json", help=f"put its tables into docs/explanation/{PAGE.name}"
    )
    arguments = parser.parse_args()
    if path := arguments.table:
        print(tables(figures.read(path)))
    elif path := arguments.draw:
        PICTURE.write_text(draw(figures.read(path)), encoding="utf-8")
    elif path := arguments.write_docs:
        PAGE.write_text(page(PAGE.read_text(encoding="utf-8"), figures.read(path)), encoding="utf-8")
    else:
        return run(quick=arguments.quick)
    return 0


def run(*, quick: bool) -> int:
    """Measure, store and print the result; if requests failed, print only the failures."""
    result = measure(quick=quick, say=lambda text: print(f"  {text}", file=sys.stderr, flush=True))
    path = figures.write(result, RESULTS)
    troubles = result.failures()
    for line in troubles:
        print(f"FAILED  {line}", file=sys.stderr)
    if not troubles:
        print(tables(result))
    print(f"\nwritten to {path} in {result.took_s:.0f} s")
    return 1 if troubles else 0


if __name__ == "__main__":
    sys.exit(main())
