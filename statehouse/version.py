"""Which Statehouse this is: the version of the installed package, and the variable that may name its commit."""

from importlib import metadata
from typing import Final

__all__ = ["GIT_SHA_VARIABLE", "VERSION"]

VERSION: Final = metadata.version("statehouse")
GIT_SHA_VARIABLE: Final = "STATEHOUSE_GIT_SHA"
"""Set by whoever builds an image: the commit that it was built from."""
