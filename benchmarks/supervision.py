"""Memory of workers, and how fast a killed one is replaced.

50 workers forked from a mold that has every SDK loaded: PSS of each when idle, and after a refresh; against a bare
fork (3 MB) and a fresh exec (68 MB idle, 113 worked) of the same machine kind. Then 30 SIGKILLs, generic and refresh
workers in turn: from the signal to the replacement's row saying `started`.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
from sqlalchemy import select

from benchmarks.figures import Figure, percentile, progress, tell
from benchmarks.stand import fresh_home, migrated
from miq.db import Database
from miq.demo.simulator import Simulator
from miq.models import Authentication, Endpoint, ExtManagementSystem, Zone
from miq.paths import Home
from miq.secrets import Key
from miq.server import seeding
from tests.parts import moto
from tests.process.appliance import Appliance, appliance, eventually

WORKERS, KILLS = 50, 30
SETTINGS = """
server: {mold: {preload: [benchmarks.sdks]}}
workers: {worker_base: {queue_worker_base: {generic_worker: {count: %d}}}}
"""
REFRESH = "ManageIQ::Providers::Amazon::CloudManager::RefreshWorker"


def pss_mb(server: Appliance, type_name: str) -> list[float]:
    """PSS of every worker of a type, in MB."""
    return [psutil.Process(row[3]).memory_full_info().pss / 2**20 for row in server.workers(type_name)]


def add_managers(dsn: str, key: Key, url: str, count: int) -> None:
    """Managers with valid credentials, all of one simulated account."""
    database = Database(dsn)
    with database.session() as session:
        zone_id = session.scalar(select(Zone.id).where(Zone.name == "default"))
        for number in range(count):
            ems = ExtManagementSystem(
                name=f"bench {number}", type="ManageIQ::Providers::Amazon::CloudManager",
                provider_region="us-east-1", zone_id=zone_id,
            )  # fmt: skip
            session.add(ems)
            session.flush()
            owner = {"resource_type": "ExtManagementSystem", "resource_id": ems.id}
            session.add(Endpoint(role="default", url=url, **owner))
            session.add(
                Authentication(
                    authtype="default",
                    userid="AKIABENCH",
                    password=key.encrypt("secret"),
                    status="Valid",
                    type="AuthUseridPassword",
                    **owner,
                )
            )
    database.close()


@contextmanager
def simulated(home: Home) -> Iterator[str]:
    """The simulator of `make run`: with its few dozen instance types 50 refreshes take a minute, with all 1,400 six."""
    folder = home.path / "demo"
    folder.mkdir()
    simulator = Simulator(folder, home.log_dir / "simulator.log")
    simulator.wait()
    try:
        yield simulator.url
    finally:
        simulator.stop()


def fill(url: str) -> None:
    """A small account: an image and 100 instances of it."""
    ec2 = moto.client(url)
    image = moto.register_image(ec2, "bench")
    for number in range(5):
        moto.run_instances(ec2, image, 20, name=f"bench-{number}")


def idle(dsn: str, home: Home) -> float:
    """The mean PSS of 50 idle generic workers."""
    with appliance(dsn, home.path, settings=SETTINGS % WORKERS, PYTHONPATH=str(Path.cwd())) as server:
        server.wait_for_workers(WORKERS, "MiqGenericWorker")
        time.sleep(3)
        values = pss_mb(server, "MiqGenericWorker")
        progress(f"idle: {min(values):.1f}..{max(values):.1f} MB over {len(values)} workers")
        assert server.stop(seconds=60) == 0
    return sum(values) / len(values)


def worked_and_killed(dsn: str, home: Home, url: str) -> tuple[float, list[float]]:
    """The mean PSS of 50 refresh workers after their refresh, and the milliseconds of 30 replacements."""
    with appliance(dsn, home.path, settings=SETTINGS % 2, PYTHONPATH=str(Path.cwd())) as server:
        server.wait_for_workers(2, "MiqGenericWorker")
        add_managers(dsn, Key.load(home.path / "keys" / "v2_key"), url, WORKERS)
        eventually(lambda: len(server.workers(REFRESH)) == WORKERS, seconds=60, what="50 refresh workers")
        eventually(lambda: _refreshed(server) >= WORKERS, seconds=200, what="50 refreshes")
        time.sleep(3)
        values = pss_mb(server, REFRESH)
        progress(f"worked: {min(values):.1f}..{max(values):.1f} MB over {len(values)} workers")
        kills = [kill_one(server, ("MiqGenericWorker", REFRESH)[number % 2]) for number in range(KILLS)]
        progress(f"replaced: {min(kills):.1f}..{max(kills):.1f} ms, p50 {percentile(kills, 0.5):.1f}")
        assert server.stop(seconds=90) == 0
    return sum(values) / len(values), kills


def _refreshed(server: Appliance) -> int:
    return int(server.sql("SELECT count(*) FROM ems_refreshes WHERE state IN ('ok', 'partial')")[0][0])


def kill_one(server: Appliance, type_name: str) -> float:
    """Milliseconds from SIGKILL to the replacement's row saying `started`."""
    eventually(
        lambda: not server.sql("SELECT 1 FROM miq_queue WHERE state = 'dequeue'"), seconds=60, what="idle workers"
    )
    victim = random.choice(server.workers(type_name))
    last = server.sql("SELECT max(id) FROM miq_workers")[0][0]
    began = time.monotonic()
    os.kill(victim[3], signal.SIGKILL)
    while not server.sql(
        "SELECT 1 FROM miq_workers WHERE id > %s AND type = %s AND status = 'started'", last, type_name
    ):
        assert time.monotonic() - began < 20
        time.sleep(0.001)
    took = (time.monotonic() - began) * 1000
    time.sleep(random.uniform(0.3, 0.6))
    return took


def main() -> int:
    """Measure all three."""
    with fresh_home() as home, migrated(home) as dsn, simulated(home) as url:
        fill(url)
        key = Key.load_or_create(home.key_file)
        database = Database(dsn)
        with database.session() as session:
            seeding.seed(session, key)
        database.close()
        idle_mb = idle(dsn, home)
        worked_mb, kills = worked_and_killed(dsn, home, url)
    return tell(
        [
            Figure("worker_pss_idle_mb", idle_mb, "MB", 8),
            Figure("worker_pss_worked_mb", worked_mb, "MB", 30),
            Figure("replace_p95_ms", percentile(kills, 0.95), "ms", 60),
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
