"""Recorded answers of real systems, kept beside the checkout in `../shared/peer`; its README tells what they are.

Where the folder is not there, tests that need it are skipped with a line that says so; in CI that is an error.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PEER = Path(__file__).resolve().parents[3] / "shared" / "peer"


def require() -> Path:
    """The folder; without it the test is skipped, or fails in CI."""
    if not PEER.is_dir():
        text = f"recorded answers are not there: {PEER}"
        pytest.fail(text) if os.environ.get("CI") else pytest.skip(text)
    return PEER


def module(name: str) -> ModuleType:
    """One of the peer's own modules, e.g. `aws_vsphere/replay.py`."""
    path = require() / name
    spec = importlib.util.spec_from_file_location(f"peer_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = loaded
    spec.loader.exec_module(loaded)
    return loaded


def expected(case: str) -> dict[str, Any]:
    """The facts that the inventory must hold."""
    loaded: dict[str, Any] = json.loads((require() / "expected" / f"{case}.json").read_text())
    return loaded
