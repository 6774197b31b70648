"""The named statements of `queries.sql`."""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path


@cache
def _load() -> dict[str, str]:
    parts = re.split(r"^-- name: (\w+)$", Path(__file__).with_name("queries.sql").read_text(), flags=re.MULTILINE)
    bodies = [
        "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip() for body in parts[2::2]
    ]
    return dict(zip(parts[1::2], bodies, strict=True))


def statement(name: str) -> str:
    """The statement of that name, its comments taken out."""
    return _load()[name]
