"""The command line of `miq-server` and `miq-worker`: what cannot be used is one line, and exit code 2."""

from __future__ import annotations

import argparse
from typing import NoReturn

from miq import __version__


class Arguments(argparse.ArgumentParser):
    """A parser that knows `--version`, and says what is wrong without the whole usage before it."""

    def __init__(self, prog: str, description: str) -> None:
        super().__init__(prog=prog, description=description)
        self.add_argument("--version", action="version", version=f"miq {__version__}")

    def error(self, message: str) -> NoReturn:
        """Called by the library for every word that it cannot use."""
        self.exit(2, f"{self.prog}: {message}; `{self.prog} --help` tells what can be said\n")
