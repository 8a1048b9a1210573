"""``agent-service version``."""

import argparse


def declare(_: argparse.ArgumentParser) -> None:
    """No arguments."""


def run(_: argparse.Namespace) -> int:
    """Print it."""
    import importlib.metadata

    print(importlib.metadata.version("agent-service"))
    return 0
