"""Log lines keep the shape that operators grep for."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from miq import log

HEAD = re.compile(
    r"^\[----\] (?P<letter>[DIWEF]), \[\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6} #(?P<pid>\d+):[0-9a-f]{6}\]"
    r" +(?P<level>DEBUG|INFO|WARN|ERROR|FATAL) -- evm: (?P<text>.*)$"
)


@pytest.fixture(autouse=True)
def unconfigured() -> Iterator[None]:
    root = logging.getLogger("miq")
    before = (root.handlers[:], root.propagate, root.level)
    yield
    for handler in root.handlers:
        handler.close()
    root.handlers[:], root.propagate = before[0], before[1]
    root.setLevel(before[2])


@pytest.mark.parametrize(
    ("level", "letter", "name"),
    [(logging.INFO, "I", "INFO"), (logging.WARNING, "W", "WARN"), (logging.ERROR, "E", "ERROR"), (50, "F", "FATAL")],
)
def test_the_head_of_a_line(tmp_path: Path, level: int, letter: str, name: str) -> None:
    log.configure(tmp_path / "evm.log")
    logging.getLogger("miq.x").log(level, "MIQ(MiqServer#start) %s", "up")
    found = HEAD.match((tmp_path / "evm.log").read_text().rstrip("\n"))
    assert found is not None
    assert (found["letter"], found["level"], found["pid"]) == (letter, name, str(os.getpid()))
    assert found["text"] == "MIQ(MiqServer#start) up"


def test_a_traceback_stays_on_one_line(tmp_path: Path) -> None:
    log.configure(tmp_path / "evm.log")
    try:
        raise ValueError("broken")
    except ValueError:
        logging.getLogger("miq.x").error("MIQ(X.y)", exc_info=True)
    lines = (tmp_path / "evm.log").read_text().splitlines()
    assert len(lines) == 1 and "ValueError: broken" in lines[0]


def test_a_file_that_cannot_be_written_is_said_and_nothing_is_lost(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(tmp_path / "no such folder" / "evm.log")
    logging.getLogger("miq.x").info("still here")
    said = capsys.readouterr().err
    assert "cannot be written" in said and "still here" in said
