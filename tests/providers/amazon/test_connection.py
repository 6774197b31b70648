"""Connecting to Amazon: what its user is told when that fails, what is never told, roles, proxies, the mold."""

from __future__ import annotations

import logging
import subprocess
import sys
import traceback
from dataclasses import replace
from pathlib import Path

import pytest

from miq.connections import ConnectionSpec, Credentials
from miq.errors import IncompleteCredentials, InvalidCredentials, ProviderError, ProviderUnreachable
from miq.providers.amazon.connection import Connection, check
from tests.parts import moto
from tests.parts.certificate import self_signed
from tests.parts.front import front
from tests.parts.managers import SECRET


def spec(url: str, **changes: object) -> ConnectionSpec:
    made = ConnectionSpec(1, "aws", "us-east-1", Credentials("AKIAKEY", SECRET), endpoint_url=url)
    return replace(made, **changes)  # type: ignore[arg-type]


def test_sound_credentials(aws: str) -> None:
    check(spec(aws))


@pytest.mark.parametrize(
    ("status", "code", "kind", "line"),
    [
        (401, "AuthFailure", InvalidCredentials, "Login failed due to a bad username or password."),
        (403, "SignatureDoesNotMatch", InvalidCredentials, "SignatureMismatch - check your AWS Secret Access Key"),
        (403, "UnauthorizedOperation", ProviderError, "Unexpected response returned from system: UnauthorizedOp"),
    ],
)
def test_refused(status: int, code: str, kind: type[ProviderError], line: str) -> None:
    with front(None) as gate:
        gate.refuse("DescribeRegions", status, code, f"it was {SECRET} that did not match")
        with pytest.raises(ProviderError, match=line) as caught:
            check(spec(gate.url))
    assert type(caught.value) is kind
    assert SECRET not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize("credentials", [Credentials(), Credentials("AKIAKEY"), Credentials(password=SECRET)])
def test_missing_credentials(credentials: Credentials) -> None:
    with pytest.raises(IncompleteCredentials, match="Missing credentials"):
        check(spec("http://127.0.0.1:1", credentials=credentials))


def test_out_of_reach() -> None:
    with pytest.raises(ProviderUnreachable, match="the endpoint cannot be reached"):
        check(spec(f"http://127.0.0.1:{moto.free_port()}"))


def test_not_an_address() -> None:
    with pytest.raises(ProviderUnreachable, match="the endpoint cannot be used"):
        check(spec("not an address"))


def test_not_ec2() -> None:
    with front(None) as gate, pytest.raises(ProviderError, match="Unexpected response returned from system"):
        check(spec(gate.url))


def test_certificates(aws: str, tmp_path: Path) -> None:
    certificate = self_signed(tmp_path)
    with front(aws, certificate=certificate) as gate:
        with pytest.raises(ProviderUnreachable, match="the certificate of the endpoint is not trusted"):
            check(spec(gate.url))
        check(spec(gate.url, certificate_authority=certificate[0].read_text()))
        check(spec(gate.url, verify_ssl=False))
    with pytest.raises(ProviderUnreachable, match="certificate"):
        check(spec(aws.replace("http:", "https:")))


def test_a_proxy_is_used_and_its_password_is_not_told(aws: str) -> None:
    with front(aws) as gate:
        check(spec("http://ec2.example", http_proxy=gate.url))
        assert gate.calls["DescribeRegions"] == 1
    with pytest.raises(ProviderUnreachable) as caught:
        check(spec(aws, http_proxy=f"http://me:{SECRET}@127.0.0.1:{moto.free_port()}"))
    assert SECRET not in str(caught.value)


def test_a_role_is_assumed(aws: str) -> None:
    role = "arn:aws:iam::123456789012:role/reader"
    with front(aws) as gate:
        connection = Connection(spec(gate.url, credentials=Credentials("AKIAKEY", SECRET, role)))
        connection.call("describe_regions")
        connection.call("describe_regions")
    assert gate.seen == ["AssumeRole", "DescribeRegions", "DescribeRegions"]


def test_secrets_are_not_shown(aws: str, caplog: pytest.LogCaptureFixture) -> None:
    made = spec(aws, http_proxy=f"http://me:{SECRET}@proxy:3128")
    assert SECRET not in repr(made)
    with caplog.at_level(logging.DEBUG, "miq"):
        check(spec(aws))
    assert SECRET not in caplog.text


def test_the_mold_is_warmed_without_a_network() -> None:
    """And leaves nothing of the SDK to be imported by a worker's first calls."""
    code = (
        "import socket, sys\n"
        "socket.socket.connect = None\n"
        "from miq.providers.amazon import connection\n"
        "connection.warm()\n"
        "before = set(sys.modules)\n"
        "from miq.connections import ConnectionSpec, Credentials\n"
        "client = connection.Connection(ConnectionSpec(1, 'a', 'us-east-1', Credentials('a', 'b'))).ec2\n"
        "client.generate_presigned_url('describe_instances')\n"
        "print(sorted(name for name in set(sys.modules) - before if name.startswith(('boto', 'urllib3'))))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"


def test_the_record_imports_no_sdk() -> None:
    code = "import sys, miq.providers.amazon; print([name for name in sys.modules if name.startswith('boto')])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[]"
