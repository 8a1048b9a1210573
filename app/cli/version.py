"""``agent-service version``: print the version."""

import argparse


def declare(_: argparse.ArgumentParser) -> None:
    """Declare no arguments."""


def run(_: argparse.Namespace) -> int:
    """Print the version."""
    import importlib.metadata

    print(importlib.metadata.version("agent-service"))
    return 0
