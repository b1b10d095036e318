"""What the benchmarks' command lines have in common."""

import argparse

__all__ = ["count"]


def count(text: str) -> int:
    """An argument that is a whole number from 1 up; argparse.ArgumentTypeError for another."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 up")
    return int(text)
