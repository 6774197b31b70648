"""The executable `miq`: starts the command line of `miq.cli` and does nothing else."""

from __future__ import annotations

import sys

from miq.cli.app import main as run


def main() -> None:
    """Entry point."""
    sys.exit(run())


if __name__ == "__main__":
    main()
