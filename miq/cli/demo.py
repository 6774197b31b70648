"""`miq demo`, which is `make run`: a simulated Amazon account that keeps changing, and an appliance following it."""

from __future__ import annotations

from typing import Annotated

import typer

from miq import paths
from miq.demo.simulator import is_installed
from miq.demo.terminal import Requests, foreground
from miq.errors import UsageError


def demo(
    seconds: Annotated[float | None, typer.Option(min=0, help="Stop after so many seconds.")] = None,
) -> int:
    """Run a simulated account and a miq-server for it, in the foreground; Ctrl-C stops both."""
    if not is_installed():
        raise UsageError("the simulator is not installed: pip install 'miq[demo]'")
    with foreground(), Requests().heard() as requests:
        # here, for it takes a second: Ctrl-C is heard from the start
        from miq.demo.run import run

        return run(paths.home(), requests, seconds)


command = demo
