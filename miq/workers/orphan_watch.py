"""Warnings about messages that nobody can take: a line when it begins, then every ten minutes, until it is over."""

from __future__ import annotations

from collections.abc import Iterable

from miq.queue.routes import Orphan

#: seconds between two lines about the same
REPEAT = 600.0


class OrphanWatch:
    """Knows what it has told, and when. How many messages there are is in the line, but is no news by itself."""

    def __init__(self) -> None:
        self._told: dict[tuple[str | None, ...], float] = {}

    def lines(self, orphans: Iterable[Orphan], now: float) -> list[str]:
        """What has to be told now, in seconds of the monotonic clock; what is no orphan any more is forgotten."""
        told, self._told = self._told, {}
        lines = []
        for orphan in orphans:
            kind = (orphan.zone, orphan.role, orphan.queue_name, orphan.server_guid, orphan.reason)
            since = told.get(kind)
            if since is None or now - since >= REPEAT:
                since = now
                lines.append(_line(orphan))
            self._told[kind] = since
        return lines


def _line(orphan: Orphan) -> str:
    server = f", server [{orphan.server_guid}]" if orphan.server_guid else ""
    return (
        f"MIQ(MiqQueue.check_orphans) no running worker can take {orphan.count} messages"
        f" (zone [{orphan.zone or 'any'}], role [{orphan.role or 'none'}], queue [{orphan.queue_name or ''}]{server}):"
        f" {orphan.reason}"
    )
