"""The process of the simulator: moto's own server application, on the socket that `simulator.py` hands down.

Three things are added. A request that carries a seed draws its random numbers from that alone, and may carry a time,
too: left to itself, moto draws from one stream for all, and every request takes some of it (its request id), so that
ids would depend on who asked what in between. Requests to EC2 run one at a time, for its tables are not made for
threads. And terminated instances are forgotten after a while, as by the real service, and few instance types are known,
so the account stays small.
"""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, nullcontext
from datetime import UTC, datetime
from random import Random, SystemRandom
from typing import Any

from moto.core.models import DEFAULT_ACCOUNT_ID
from moto.ec2.models import EC2Backend, ec2_backends, elastic_block_store, instances, key_pairs
from moto.moto_api._internal import mock_random
from moto.moto_api._internal.moto_random import MotoRandom
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import make_server

from miq.demo.simulator import REGION, SEED_HEADER, TIME_HEADER

FAMILIES = {"t2", "t3", "m5", "c5", "r5"}
TERMINATED_KEPT = 5

App = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Request(threading.local):
    """Where the request of this thread draws its random numbers from, and its time if it is not the clock's."""

    def __init__(self) -> None:
        self.random: Random = SystemRandom()
        self.time: datetime | None = None


_request = _Request()
_ec2_lock = threading.Lock()


@contextmanager
def determined(seed: str | None, time: str | None) -> Iterator[None]:
    """Draw from the seed and live at that time (seconds since 1970), if they are given."""
    before = _request.random, _request.time
    if seed is not None:
        _request.random = Random(seed)  # noqa: S311 - a simulation, no secret
    if time is not None:
        _request.time = datetime.fromtimestamp(int(time), UTC).replace(tzinfo=None)
    try:
        yield
    finally:
        _request.random, _request.time = before


class RandomByThread(MotoRandom):
    """Takes the place of moto's one generator: whatever is drawn comes through these two methods."""

    def random(self) -> float:
        return _request.random.random()

    def getrandbits(self, bits: int, /) -> int:
        return _request.random.getrandbits(bits)


def now() -> datetime:
    """For moto's `utcnow`, which is naive."""
    return _request.time or datetime.now(UTC).replace(tzinfo=None)


def make_region() -> Any:  # noqa: ANN401 - moto's
    """The region with what every account has in it (default network, images), before anybody asks."""
    EC2Backend.instance_types[:] = [
        each for each in EC2Backend.instance_types if each.name.partition(".")[0] in FAMILIES
    ]
    with determined("region", None):
        return ec2_backends[DEFAULT_ACCOUNT_ID][REGION]


def forget_terminated(backend: Any) -> None:  # noqa: ANN401 - moto's
    """Each of our reservations holds one instance."""
    gone = [
        number
        for number, reservation in backend.reservations.items()
        if all(instance.state == "terminated" for instance in reservation.instances)
    ]
    for number in gone[:-TERMINATED_KEPT]:
        del backend.reservations[number]


def simulated(app: App, backend: Any) -> App:  # noqa: ANN401 - moto's
    """The application with seeds, taking turns, and forgetting."""
    seed, time = (f"HTTP_{name.upper().replace('-', '_')}" for name in (SEED_HEADER, TIME_HEADER))

    def answer(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:  # noqa: ANN401 - WSGI's
        ec2 = "/ec2/aws4_request" in environ.get("HTTP_AUTHORIZATION", "")
        with _ec2_lock if ec2 else nullcontext(), determined(environ.get(seed), environ.get(time)):
            if ec2:
                forget_terminated(backend)
            return app(environ, start_response)

    return answer


def main() -> None:
    """Serve until we are killed."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    mock_random.__class__ = RandomByThread
    for module in (instances, elastic_block_store, key_pairs):
        setattr(module, "utcnow", now)  # noqa: B010 - not a name that moto exports
    app = simulated(DomainDispatcherApplication(create_backend_app), make_region())
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler, fd=int(sys.argv[1]))
    server.serve_forever()


if __name__ == "__main__":
    main()
