"""A refresh of 10,000 instances: against the bare reads of the same pages, what an unchanged one writes, how memory
grows.

The account is moto's, over HTTP; 20 instances stand in each reservation and 50 reservations in a page, so a page has
1,000 instances, the most that EC2 itself answers. Bare reads and refreshes run in turn, each in a fresh process, as
in a worker. `DATABASE_URL` names a database of its own to use; without it an embedded one is started.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

from benchmarks.figures import Figure, progress, tell
from benchmarks.stand import fresh_home, migrated
from miq import process, settings, settings_loader
from miq.db import Database
from miq.ems_refresh import refresh
from miq.models import EmsRefresh, ExtManagementSystem
from miq.paths import Home
from miq.schema import migrate
from miq.settings import Settings
from tests.parts import moto
from tests.parts.managers import AMAZON, add_amazon
from tests.parts.written import Watch

MANY, FEW = 10_000, 1_000
IN_RESERVATION, RESERVATIONS_IN_PAGE = 20, 50
#: one reservation in so many has a Name tag
TAGGED = 20
REGIONS = {MANY: "us-east-1", FEW: "us-west-2"}
ROUNDS = 2


# -- in a process of its own -------------------------------------------------------------------------------------------


def bare(url: str, region: str) -> dict[str, float]:
    """Read the same pages with the SDK and throw them away."""
    ec2: Any = boto3.session.Session("key", "secret", region_name=region).client(
        "ec2", endpoint_url=url, config=Config(read_timeout=120, retries={"total_max_attempts": 1})
    )
    began = time.monotonic()
    instances = 0
    images: set[str] = set()
    ec2.describe_availability_zones()
    for _ in _pages(ec2, "describe_instance_types", 100):
        pass
    for page in _pages(ec2, "describe_instances", RESERVATIONS_IN_PAGE):
        for reservation in page["Reservations"]:
            instances += len(reservation["Instances"])
            images.update(instance["ImageId"] for instance in reservation["Instances"])
    machines = {"Name": "image-type", "Values": ["machine"]}
    for arguments in (
        {"Owners": ["self"], "Filters": [machines]},
        {"ExecutableUsers": ["self"], "Filters": [machines]},
        {"Filters": [{"Name": "image-id", "Values": sorted(images)}]},
    ):
        for _ in _pages(ec2, "describe_images", 1000, **arguments):
            pass
    return {"seconds": time.monotonic() - began, "instances": instances, "peak": process.peak_rss()}


def _pages(ec2: Any, operation: str, size: int, **arguments: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
    yield from ec2.get_paginator(operation).paginate(**arguments, PaginationConfig={"PageSize": size})


def refreshed(dsn: str, ems_id: int) -> dict[str, float]:
    """One refresh, as a worker's message does it."""
    page = {"ems_refresh": {"ec2": {"page_size": RESERVATIONS_IN_PAGE}}}
    database = Database(dsn, "MIQ bench")
    with database.session() as session:
        session.info["settings"] = Settings(settings.merge([*settings_loader.shipped(), page]))
        began = time.monotonic()
        refresh(session, None, [[AMAZON, ems_id]], "bench")
        seconds = time.monotonic() - began
        record = session.query(EmsRefresh).order_by(EmsRefresh.id.desc()).limit(1).one()
        assert record.state == "ok", record.error
        vms = record.collections["vms"]
        return {
            "seconds": seconds,
            "instances": vms["seen"],
            "created": vms["created"],
            "peak": record.memory_peak or 0,
        }


def apart(*arguments: str) -> dict[str, float]:
    """Run one of the two in a fresh process."""
    command = [sys.executable, "-m", "benchmarks.amazon_refresh", *arguments]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    progress(f"{arguments[0]:<8} {found['instances']:>6.0f} instances {found['seconds']:6.1f} s "
             f"peak {found['peak'] / 2**20:.0f} MB")  # fmt: skip
    return found


# -- the run -----------------------------------------------------------------------------------------------------------


@contextmanager
def database_of_run(home: Home) -> Iterator[str]:
    """DATABASE_URL, migrated, or an embedded one."""
    given = os.environ.get("DATABASE_URL")
    if not given:
        with migrated(home) as dsn:
            yield dsn
        return
    database = Database(given, "MIQ bench")
    migrate(database, progress=lambda text: None)
    database.close()
    yield given


def fill(url: str, region: str, instances: int) -> None:
    """Instances in reservations of 20, as moto's pages count reservations."""
    began = time.monotonic()
    ec2 = moto.client(url, region=region)
    image = moto.register_image(ec2, "image")
    for number in range(instances // IN_RESERVATION):
        # moto looks through all tags for those of each instance: with every one tagged it is all that would be measured
        moto.run_instances(ec2, image, IN_RESERVATION, name=None if number % TAGGED else "bench")
    progress(f"{instances} instances made in {time.monotonic() - began:.0f} s")


def add(dsn: str, home: Home, url: str, instances: int) -> int:
    """A manager for the account's region."""
    database = Database(dsn, "MIQ bench")
    with database.session() as session:
        ems = add_amazon(session, home, url, name=f"bench of {instances}")
        session.get_one(ExtManagementSystem, ems.id).provider_region = REGIONS[instances]
    database.close()
    return ems.id


def unchanged(dsn: str, ems_id: int) -> tuple[dict[str, float], int]:
    """A refresh that finds what it left, and what it wrote to the inventory: rows, WAL records, sequence numbers."""
    database = Database(dsn, "MIQ bench")
    watch = Watch(database)
    found = apart("refresh", dsn, str(ems_id))
    written = watch.writes()
    database.close()
    progress(f"unchanged: {written}")
    return found, written.total


def measure(dsn: str, home: Home, url: str) -> list[Figure]:
    """Bare reads and refreshes in turn."""
    for instances, region in REGIONS.items():
        fill(url, region, instances)
    many, few = (add(dsn, home, url, instances) for instances in (MANY, FEW))
    small = apart("refresh", dsn, str(few))
    reads, refreshes, written = [], [], 0
    for number in range(ROUNDS):
        reads.append(apart("bare", url, REGIONS[MANY]))
        if number == 0:
            refreshes.append(apart("refresh", dsn, str(many)))
        else:
            found, written = unchanged(dsn, many)
            refreshes.append(found)
    assert {run["instances"] for run in (*reads, *refreshes)} == {MANY} and refreshes[0]["created"] == MANY
    ratio = sum(run["seconds"] for run in refreshes) / sum(run["seconds"] for run in reads)
    return [
        Figure("amazon_refresh_vs_reads", ratio, "ratio", 1.3),
        Figure("amazon_unchanged_writes", written, "writes", 0),
        Figure("amazon_rss_growth", refreshes[0]["peak"] / small["peak"], "ratio", 1.5),
    ]


def main() -> int:
    """The whole run, or one part of it for `apart`."""
    match sys.argv[1:]:
        case ["bare", url, region]:
            print(json.dumps(bare(url, region)))
        case ["refresh", dsn, ems_id]:
            print(json.dumps(refreshed(dsn, int(ems_id))))
        case _:
            with fresh_home() as home, database_of_run(home) as dsn, moto.moto_server() as url:
                return tell(measure(dsn, home, url))
    return 0


if __name__ == "__main__":
    sys.exit(main())
