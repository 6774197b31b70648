"""The three spellings of a class name.

full      `ManageIQ::Providers::Amazon::CloudManager::RefreshWorker`, in the `type` columns
short     `Amazon::CloudManager::RefreshWorker`, what people type and what process titles show
brief     `Amazon::Cloud::Refresh`, the column of `miq status`
"""

from __future__ import annotations

PREFIX = "ManageIQ::Providers::"
IDS_PER_REGION = 10**12


def short(full: str) -> str:
    """`full` without the provider prefix."""
    return full.removeprefix(PREFIX)


def brief(full: str) -> str:
    """`full` as `evm:status` shortens it."""
    name = short(full)
    for part in ("Manager", "Worker", "Miq"):
        name = name.replace(part, "")
    return name


def spellings(full: str) -> tuple[str, ...]:
    """What a user may type for `full`."""
    return (full, short(full))


def compressed_id(record_id: int) -> str:
    """`12r7` for the 7th record of region 12, plain `7` in region 0: short enough for an application name."""
    region, number = divmod(record_id, IDS_PER_REGION)
    return f"{region}r{number}" if region else str(number)


def queue_of(ems_id: int) -> str:
    """The queue of one manager."""
    return f"ems_{ems_id}"


def ems_id_of(queue_name: str | None) -> int | None:
    """The manager whose queue this is, None for a shared queue."""
    if queue_name and queue_name.startswith("ems_") and queue_name[4:].isdigit():
        return int(queue_name[4:])
    return None
