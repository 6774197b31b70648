"""The spellings of class names, ids and queues."""

from __future__ import annotations

import pytest

from miq import names
from miq.errors import UnknownWorkerType
from miq.models.worker_types import WorkerType, find_worker_type, worker_type

REFRESH = "ManageIQ::Providers::Amazon::CloudManager::RefreshWorker"


def test_full_short_and_brief() -> None:
    assert names.short(REFRESH) == "Amazon::CloudManager::RefreshWorker"
    assert names.brief(REFRESH) == "Amazon::Cloud::Refresh"
    assert names.brief("MiqGenericWorker") == "Generic"


@pytest.mark.parametrize("typed", [REFRESH, "Amazon::CloudManager::RefreshWorker"])
def test_a_worker_class_is_found_by_either_name(typed: str) -> None:
    assert find_worker_type(typed).name == REFRESH


def test_an_unknown_class_is_an_error_for_people_and_the_base_class_for_rows() -> None:
    with pytest.raises(UnknownWorkerType, match="miq-worker -l"):
        find_worker_type("Nobody::RefreshWorker")
    assert worker_type("Nobody::RefreshWorker") is WorkerType
    assert worker_type(None) is WorkerType


@pytest.mark.parametrize(("record_id", "short"), [(7, "7"), (12 * 10**12 + 7, "12r7"), (10**12 - 1, "999999999999")])
def test_compressed_ids(record_id: int, short: str) -> None:
    assert names.compressed_id(record_id) == short


@pytest.mark.parametrize(
    ("queue", "ems_id"), [("ems_12", 12), ("ems", None), ("ems_", None), ("generic", None), (None, None)]
)
def test_queues_of_managers(queue: str | None, ems_id: int | None) -> None:
    assert names.ems_id_of(queue) == ems_id
    if ems_id is not None:
        assert names.queue_of(ems_id) == queue
