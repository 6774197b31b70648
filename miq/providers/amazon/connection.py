"""The SDK: sessions, clients and calls. The only file of the provider that imports boto3 or botocore.

In: a `ConnectionSpec`. Out: plain dicts, page by page. Whatever goes wrong leaves as a ProviderError of one line that
names the call; no secret is in it. Clients are made after the fork; `warm()` has read for them, before it, what they
all share.
"""

from __future__ import annotations

import logging
import os
import tempfile
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import botocore.credentials
import botocore.session
import urllib3
from botocore import exceptions
from botocore.config import Config
from botocore.credentials import (
    AssumeRoleCredentialFetcher,
    CredentialProvider,
    CredentialResolver,
    DeferredRefreshableCredentials,
)
from botocore.loaders import Loader, create_loader
from botocore.parsers import ResponseParserError
from urllib3.exceptions import InsecureRequestWarning

from miq.connections import ConnectionSpec, Credentials
from miq.errors import IncompleteCredentials, InvalidCredentials, MiqError, ProviderError, ProviderUnreachable

log = logging.getLogger(__name__)

_LOGIN_FAILED = "Login failed due to a bad username or password."
_REFUSED = {"AuthFailure", "InvalidClientTokenId", "UnrecognizedClientException", "InvalidAccessKeyId", "ExpiredToken"}
_SIGNATURE = {"SignatureDoesNotMatch", "IncompleteSignature"}

#: what is called of EC2's hundreds of operations; a client has no others
_OPERATIONS = frozenset(
    {
        "DescribeAvailabilityZones",
        "DescribeImages",
        "DescribeInstanceTypes",
        "DescribeInstances",
        "DescribeRegions",
    }
)


class Connection:
    """The clients of one account in one region."""

    def __init__(
        self, spec: ConnectionSpec, *, attempts: int = 5, connect_timeout: int = 10, read_timeout: int = 60
    ) -> None:
        self.spec = spec
        self._options: dict[str, Any] = {
            "region_name": spec.provider_region,
            "endpoint_url": spec.endpoint_url,
            "verify": self._verify(),
            "config": Config(
                connect_timeout=connect_timeout,
                read_timeout=read_timeout,
                retries={"mode": "standard", "total_max_attempts": attempts},
                tcp_keepalive=True,
                proxies={"http": spec.http_proxy, "https": spec.http_proxy} if spec.http_proxy else None,
                user_agent_extra="miq",
            ),
        }

    @cached_property
    def ec2(self) -> Any:  # noqa: ANN401 - botocore makes its clients' classes at run time
        """The EC2 client. Raises IncompleteCredentials, InvalidCredentials or ProviderError."""
        credentials = self.spec.credentials
        if not credentials.userid or not credentials.password:
            raise IncompleteCredentials("Missing credentials")
        session = botocore.session.Session()
        session.register_component("data_loader", _loader())
        given: Any = botocore.credentials.Credentials(credentials.userid, credentials.password)
        if credentials.service_account:
            given = self._assumed(session, given, credentials.service_account)
        session.register_component("credential_provider", CredentialResolver([_Given(given)]))
        client = session.create_client("ec2", **self._options)
        client.meta.events.register_first("needs-retry.ec2", _pass_on)
        return client

    def _assumed(self, session: botocore.session.Session, source: Any, role: str) -> Any:  # noqa: ANN401
        """The credentials of the role, fetched on first use and renewed before they expire."""
        fetcher = AssumeRoleCredentialFetcher(
            partial(session.create_client, **self._options),
            source,
            role,
            extra_args={"RoleSessionName": "ManageIQ-EC2"},
        )
        return DeferredRefreshableCredentials(fetcher.fetch_credentials, "assume-role")

    def _verify(self) -> bool | str:
        if not self.spec.verify_ssl:
            urllib3.disable_warnings(InsecureRequestWarning)  # the manager says so; one line a connection is enough
            log.warning("MIQ(Amazon#connect) EMS: [%s] the endpoint's certificate is not verified", self.spec.name)
            return False
        return self._bundle(self.spec.certificate_authority) if self.spec.certificate_authority else True

    def _bundle(self, certificates: str) -> str:
        """The manager's certificate authority as a file, for as long as this connection lives."""
        handle, name = tempfile.mkstemp(prefix="miq-ca-", suffix=".pem")
        with os.fdopen(handle, "w") as file:
            file.write(certificates)
        weakref.finalize(self, Path(name).unlink, missing_ok=True)
        return name

    # -- calls ---------------------------------------------------------------------------------------------------------

    def call(self, operation: str, **arguments: Any) -> dict[str, Any]:  # noqa: ANN401
        """One call of EC2. Raises ProviderError."""
        with self._named(operation):
            answer: dict[str, Any] = getattr(self.ec2, operation)(**arguments)
            return answer

    def pages(self, operation: str, *, page_size: int, **arguments: Any) -> Iterator[dict[str, Any]]:  # noqa: ANN401
        """The pages of one list, read one at a time. Raises ProviderError."""
        with self._named(operation):
            pages = iter(
                self.ec2.get_paginator(operation).paginate(**arguments, PaginationConfig={"PageSize": page_size})
            )
        while True:
            with self._named(operation):
                page = next(pages, None)
            if page is None:
                return
            yield page

    @contextmanager
    def _named(self, operation: str) -> Iterator[None]:
        """What goes wrong inside is a ProviderError that names the call."""
        name = "".join(part.capitalize() for part in operation.split("_"))
        try:
            yield
        except _FAILURES as error:
            failure = explain(error, self.spec)
        except ProviderError as error:
            failure = error
        else:
            return
        raise type(failure)(f"{name}: {failure}") from None


_FAILURES = (exceptions.BotoCoreError, exceptions.ClientError, ResponseParserError, ValueError)


class _Given(CredentialProvider):
    """The manager's own credentials, instead of whatever this machine's environment and files would give."""

    METHOD = "miq"

    def __init__(self, credentials: Any) -> None:  # noqa: ANN401
        super().__init__()
        self._credentials = credentials

    def load(self) -> Any:  # noqa: ANN401
        return self._credentials


def _pass_on(caught_exception: Exception | None = None, **_: Any) -> None:  # noqa: ANN401
    """Our own errors, such as a time-out, come out of a signal into a call: the SDK would wrap them and try again."""
    cause = getattr(caught_exception, "kwargs", {}).get("error")
    if isinstance(cause, MiqError):
        raise cause


def check(spec: ConnectionSpec) -> None:
    """One cheap live call with these credentials. Raises a ProviderError."""
    connection = Connection(spec, attempts=2, connect_timeout=5, read_timeout=20)
    try:
        connection.ec2.describe_regions()
    except _FAILURES as error:
        raise explain(error, spec) from None


def explain(error: Exception, spec: ConnectionSpec) -> ProviderError:
    """What its user can act on, in one line without secrets."""
    line = _line(str(error), spec) or type(error).__name__
    match error:
        case exceptions.ClientError():
            answer = error.response["Error"]
            code = answer.get("Code", "")
            return _explain_answer(code, f"{code}: {_line(answer.get('Message', ''), spec)}")
        case exceptions.NoCredentialsError() | exceptions.PartialCredentialsError():
            return IncompleteCredentials("Missing credentials")
        case exceptions.SSLError() if "CERTIFICATE_VERIFY_FAILED" in line:
            return ProviderUnreachable(f"the certificate of the endpoint is not trusted: {line}")
        case exceptions.SSLError():
            return ProviderUnreachable(f"no TLS with the endpoint, so no certificate to trust: {line}")
        case exceptions.ConnectionError() | exceptions.HTTPClientError():
            return ProviderUnreachable(f"the endpoint cannot be reached: {line}")
        case ResponseParserError():
            return ProviderError(f"Unexpected response returned from system: not an answer of EC2: {line}")
        case ValueError():
            return ProviderUnreachable(f"the endpoint cannot be used: {line}")
    return ProviderError(f"Unexpected response returned from system: {line}")


def _explain_answer(code: str, line: str) -> ProviderError:
    if code in _SIGNATURE:
        return InvalidCredentials("SignatureMismatch - check your AWS Secret Access Key and signing method")
    if code in _REFUSED:
        return InvalidCredentials(_LOGIN_FAILED)
    return ProviderError(f"Unexpected response returned from system: {line}")


def _line(text: str, spec: ConnectionSpec) -> str:
    line = " ".join(text.split())
    proxy = urlsplit(spec.http_proxy).password if spec.http_proxy else None
    for secret in (spec.credentials.password, proxy):
        line = line.replace(secret, "********") if secret else line
    return line


# -- what clients share ------------------------------------------------------------------------------------------------


@cache
def _loader() -> Loader:
    """One for the process, and for the processes forked from it, with what is called of EC2 and no more.

    A client gets a method, made after the fork, for every operation that is described: five megabytes for all of EC2's.
    The shapes that no operation leads to are another twelve megabytes of the mold.
    """
    loader = create_loader()
    model = loader.load_service_model("ec2", "service-2")
    model["operations"] = {name: model["operations"][name] for name in _OPERATIONS}
    shapes: dict[str, Any] = {}
    wanted = list(_shapes_of(model["operations"]))
    while wanted:
        name = wanted.pop()
        if name not in shapes:
            shapes[name] = model["shapes"][name]
            wanted += _shapes_of(shapes[name])
    model["shapes"] = shapes
    return loader


def _shapes_of(description: Any) -> Iterator[str]:  # noqa: ANN401 - parsed JSON
    """The names of the shapes that a part of a service's description refers to."""
    if isinstance(description, dict):
        for key, value in description.items():
            if key == "shape" and isinstance(value, str):
                yield value
            else:
                yield from _shapes_of(value)
    elif isinstance(description, list):
        for value in description:
            yield from _shapes_of(value)


# -- the mold ----------------------------------------------------------------------------------------------------------


def warm() -> None:
    """Make the SDK import and read, before workers are forked, what it would load on first use. Touches no network."""
    spec = ConnectionSpec(0, "mold", "us-east-1", Credentials("mold", "mold"))
    ec2 = Connection(spec).ec2
    ec2.get_paginator("describe_instances")
    ec2.generate_presigned_url("describe_regions")
    ec2.close()
    _loader().load_service_model("sts", "service-2")
