"""Ctrl-C in the terminal of `make run`: it comes to us alone, so that make sees a clean end; a second one hurries."""

from __future__ import annotations

import os
import pty
import shutil
import sys
from pathlib import Path

import pytest

PROGRAM = """
import time
from miq.demo.terminal import Requests, foreground, say
with foreground(), Requests().heard() as requests:
    say("up")
    while not requests.stop:
        time.sleep(0.01)
    say("stopping")
    until = time.monotonic() + {stop_takes}
    while time.monotonic() < until and not requests.hurry:
        time.sleep(0.01)
    say("hurried" if requests.hurry else "done")
"""


def make_in_a_terminal(folder: Path, stop_takes: float) -> tuple[int, int]:
    (folder / "program.py").write_text(PROGRAM.format(stop_takes=stop_takes))
    (folder / "Makefile").write_text(f"run:\n\t@{sys.executable} program.py\n\t@echo after\n")
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(folder)
        os.execlp("make", "make", "run")
    return pid, terminal


def read_until(terminal: int, word: bytes) -> None:
    seen = b""
    while word not in seen:
        more = read(terminal)
        assert more, f"it ended after {seen!r}"
        seen += more


def read(terminal: int) -> bytes:
    """What was written, nothing once the other side is closed."""
    try:
        return os.read(terminal, 1000)
    except OSError:
        return b""


@pytest.mark.skipif(shutil.which("make") is None, reason="there is no make")
@pytest.mark.parametrize(("stop_takes", "times", "end"), [(0.0, 1, b"done"), (60.0, 2, b"hurried")])
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_make_ends_cleanly_on_ctrl_c(tmp_path: Path, stop_takes: float, times: int, end: bytes) -> None:
    pid, terminal = make_in_a_terminal(tmp_path, stop_takes)
    try:
        read_until(terminal, b"up")
        os.write(terminal, b"\x03")
        read_until(terminal, b"stopping")
        if times == 2:
            os.write(terminal, b"\x03")
            read_until(terminal, end)
        # the terminal is make's again: its next line is shown
        read_until(terminal, b"after")
        while read(terminal):
            pass
    finally:
        # hangs up on whoever is left there
        os.close(terminal)
        code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    assert code == 0
