"""``agent-service version``."""

import argparse
import importlib.metadata


def declare(parser: argparse.ArgumentParser) -> None:
    """No arguments."""
    parser.epilog = "example: agent-service version"


def run(_: argparse.Namespace) -> int:
    """Print it."""
    print(importlib.metadata.version("agent-service"))
    return 0
