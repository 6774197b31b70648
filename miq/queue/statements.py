"""The named statements of `queries.sql`."""

from __future__ import annotations

import re
from pathlib import Path


def _load() -> dict[str, str]:
    parts = re.split(r"^-- name: (\w+)$", Path(__file__).with_name("queries.sql").read_text(), flags=re.MULTILINE)
    bodies = [
        "\n".join(line for line in body.splitlines() if not line.startswith("--")).strip() for body in parts[2::2]
    ]
    return dict(zip(parts[1::2], bodies, strict=True))


#: read at import, so that workers share what the mold has read
STATEMENTS = _load()


def statement(name: str) -> str:
    """The statement of that name, its comments taken out."""
    return STATEMENTS[name]
