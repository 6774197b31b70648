"""An AWS that answers over HTTP: moto's server, a process of its own on a free port of the loopback.

`with moto_server() as url` waits until it answers and ends it by its pid. `client()` is a bare SDK client for setting
up an account.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import boto3
from botocore.config import Config

REGION = "us-east-1"


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def moto_server(*, default_images: bool = False, seconds: float = 60) -> Iterator[str]:
    """The URL of a running moto server."""
    port = free_port()
    environment = {
        **os.environ,
        "MOTO_EC2_LOAD_DEFAULT_AMIS": str(default_images).lower(),
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    with tempfile.TemporaryFile() as log, subprocess.Popen(command, env=environment, stdout=log, stderr=log) as process:
        try:
            url = f"http://127.0.0.1:{port}"
            _wait(url, process, seconds)
            yield url
        finally:
            process.terminate()
            process.wait(20)


def _wait(url: str, process: subprocess.Popen[bytes], seconds: float) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            with urllib.request.urlopen(f"{url}/moto-api/data.json", timeout=5):
                return
        except OSError:
            if process.poll() is not None or time.monotonic() > end:
                raise RuntimeError(f"moto does not answer at {url}, exit code {process.poll()}") from None
            time.sleep(0.1)


def reset(url: str) -> None:
    """Forget everything but what every account has."""
    request = urllib.request.Request(f"{url}/moto-api/reset", method="POST")
    with urllib.request.urlopen(request, timeout=30):
        pass


def client(url: str, service: str = "ec2", region: str = REGION) -> Any:
    """A bare SDK client of the simulated account."""
    return boto3.session.Session("key", "secret", region_name=region).client(
        service,  # type: ignore[call-overload]
        endpoint_url=url,
        config=Config(retries={"total_max_attempts": 1}, read_timeout=120),
    )


def run_instances(
    ec2: Any,
    image: str,
    count: int = 1,
    *,
    kind: str = "t3.micro",
    name: str | None = None,
) -> list[str]:
    """Start instances; their ids."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "Name", "Value": name}]}] if name else []
    answer = ec2.run_instances(ImageId=image, InstanceType=kind, MinCount=count, MaxCount=count, TagSpecifications=tags)
    return [instance["InstanceId"] for instance in answer["Instances"]]


def register_image(ec2: Any, name: str, location: str | None = None) -> str:
    """An image of the account's own; its id."""
    image: str = ec2.register_image(
        Name=name,
        ImageLocation=location or f"123456789012/{name}",
        Architecture="x86_64",
        VirtualizationType="hvm",
        RootDeviceName="/dev/sda1",
    )["ImageId"]
    return image
