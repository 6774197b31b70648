"""The simulator of `make run`, for real: the same account with the same ids, whatever happens in between."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import boto3
import pytest

from miq import process
from miq.demo import cloud
from miq.demo.account import next_change
from miq.demo.cloud import Cloud
from miq.demo.simulator import ACCESS_KEY, REGION, SECRET_KEY, Simulator

CALL = {"ResponseMetadata"}
#: when a machine was launched, and its disks with it
TIMES = {"LaunchTime", "AttachTime", "CreateTime", "StateTransitionReason"}


@contextmanager
def simulator(folder: Path) -> Iterator[Simulator]:
    running = Simulator(folder, folder / "simulator.log")
    try:
        running.wait()
        yield running
    finally:
        running.stop()


def reader(url: str) -> Any:
    session = boto3.Session(aws_access_key_id=ACCESS_KEY, aws_secret_access_key=SECRET_KEY, region_name=REGION)
    return session.client("ec2", endpoint_url=url)


def cut(value: Any, keys: set[str]) -> Any:
    """Without these keys."""
    if isinstance(value, dict):
        return {key: cut(each, keys) for key, each in value.items() if key not in keys}
    return [cut(each, keys) for each in value] if isinstance(value, list) else value


def everything(url: str) -> dict[str, Any]:
    """The whole account, terminated machines left out, for the real service forgets them too."""
    ec2 = reader(url)
    calls = ("vpcs", "subnets", "images", "volumes", "key_pairs", "security_groups")
    account = {call: cut(getattr(ec2, f"describe_{call}")(), CALL) for call in calls}
    living = [{"Name": "instance-state-name", "Values": ["running", "stopped"]}]
    reservations = ec2.describe_instances(Filters=living)["Reservations"]
    account["instances"] = sorted(
        (cut(each["Instances"][0], CALL) for each in reservations), key=lambda each: each["InstanceId"]
    )
    return account


@contextmanager
def asking(url: str) -> Iterator[None]:
    """Somebody refreshes all the time."""
    done = threading.Event()

    def ask() -> None:
        ec2 = reader(url)
        while not done.is_set():
            ec2.describe_instances()
            ec2.describe_volumes()

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


def test_two_new_accounts_are_the_same(tmp_path: Path) -> None:
    found = []
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        with simulator(tmp_path / name) as running:
            began = time.monotonic()
            Cloud(running.url, tmp_path / name / "changes.jsonl").restore()
            print(f"seeded in {time.monotonic() - began:.1f} s")
            found.append(everything(running.url))
    assert len(found[0]["instances"]) > 20
    assert cut(found[0], TIMES) == cut(found[1], TIMES)


def test_a_replay_gives_the_same_account_though_others_asked_meanwhile(tmp_path: Path) -> None:
    log = tmp_path / "changes.jsonl"
    with simulator(tmp_path) as running, asking(running.url):
        account = Cloud(running.url, log)
        account.restore()
        for _ in range(60):
            account.step()
        first, url = everything(running.url), running.url
    with simulator(tmp_path) as running:
        again = Cloud(running.url, log)
        again.restore()
        assert (again.account, again.ids, running.url) == (account.account, account.ids, url)
        assert everything(running.url) == first


def test_a_long_log_is_shortened_and_means_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "changes.jsonl"
    with simulator(tmp_path) as running:
        account = Cloud(running.url, log)
        account.restore()
        for _ in range(100):
            account.step()
        first = everything(running.url)
    monkeypatch.setattr(cloud, "LONG", 100)
    with simulator(tmp_path) as running:
        again = Cloud(running.url, log)
        assert again.restore() < 100
        assert again.account == account.account
        assert everything(running.url) == first
        # and it goes on as the first would have
        assert replace(again.step(), at=0) == next_change(account.account)


def test_a_taken_port_is_replaced(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        taken = other.getsockname()[1]
        (tmp_path / "port").write_text(f"{taken}\n")
        with simulator(tmp_path) as running:
            assert str(taken) not in running.url
            assert (tmp_path / "port").read_text().strip() in running.url


def test_it_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    program = (
        "import time; from pathlib import Path; from miq.demo.simulator import Simulator\n"
        f"s = Simulator(Path({str(tmp_path)!r}), Path({str(tmp_path / 'log')!r})); s.wait()\n"
        "print(s.process.pid, flush=True); time.sleep(60)"
    )
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    parent.stdout.close()
    os.kill(parent.pid, signal.SIGKILL)
    parent.wait()
    deadline = time.monotonic() + 5
    while process.start_time(pid) is not None and time.monotonic() < deadline:
        time.sleep(0.02)
    assert process.start_time(pid) is None
