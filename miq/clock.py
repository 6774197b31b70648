"""Time, in the two kinds that are used.

`utc()` for columns (naive UTC, as the schema has it), `monotonic()` for waiting.
"""

from __future__ import annotations

import time
from datetime import UTC, datetime

monotonic = time.monotonic


def utc() -> datetime:
    """Now, as the naive UTC timestamp that the columns hold."""
    return datetime.now(UTC).replace(tzinfo=None)
