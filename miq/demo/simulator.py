"""The simulator of the Amazon API: starting its process, its address, its end.

The address stays the same from run to run (MIQ_HOME/demo/port), as long as nobody else has taken the port meanwhile. We
bind it and hand it down, so whoever connects early waits instead of being refused.
"""

from __future__ import annotations

import importlib.util
import os
import socket
import sys
import time
import urllib.request
from pathlib import Path

from miq.demo.children import Child
from miq.errors import MiqError

REGION = "us-east-1"
ACCESS_KEY, SECRET_KEY = "demo", "demo"
SEED_HEADER, TIME_HEADER = "X-Demo-Seed", "X-Demo-Time"

IMAGES = Path(__file__).with_name("images.json")
START_TIMEOUT = 60.0


class SimulatorFailed(MiqError):
    """The simulator of the Amazon API does not start."""


def is_installed() -> bool:
    """Whether the extra `miq[demo]` is there."""
    return all(importlib.util.find_spec(name) for name in ("moto", "flask"))


class Simulator:
    """moto's server in a process of its own."""

    def __init__(self, folder: Path, log: Path) -> None:
        self._port_file = folder / "port"
        with _bound(self._port_file) as listener:
            self.url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            argv = [sys.executable, "-m", "miq.demo.simulator_process", str(listener.fileno())]
            # moto reads its images when it is imported
            environment = {**os.environ, "MOTO_AMIS_PATH": str(IMAGES)}
            self.process = Child(argv, log, environment, keep_open=[listener.fileno()])

    def wait(self) -> None:
        """Until it answers. Raises SimulatorFailed."""
        deadline = time.monotonic() + START_TIMEOUT
        while not self._answers():
            code = self.process.exit_code
            if code is not None or time.monotonic() > deadline:
                what = "does not answer" if code is None else f"ended with {code}"
                raise SimulatorFailed(f"the simulator {what}; see {self.process.log}")
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/moto-api/data.json", timeout=5) as answer:  # noqa: S310 - ours
                return bool(answer.status == 200)
        except OSError:
            return False

    def stop(self) -> None:
        """It has nothing to save."""
        self.process.stop(timeout=5)


def _bound(port_file: Path) -> socket.socket:
    """A listening socket on the port of the last run, or on a free one, which is then kept."""
    kept = port_file.read_text().strip() if port_file.exists() else ""
    for port in (int(kept) if kept.isdigit() else 0, 0):
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except (OSError, OverflowError):
            listener.close()
            continue
        listener.listen(128)
        port_file.write_text(f"{listener.getsockname()[1]}\n")
        return listener
    raise SimulatorFailed("the simulator finds no free port on 127.0.0.1")
