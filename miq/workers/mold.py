"""The mold: a process that has imported everything once, and forks workers that share it.

Exec'ed by the server (`python -m miq.workers.mold FD SERVER_PID`), never forked from it. It imports the runners and
every installed provider's SDK, touches what those import lazily, freezes the heap and then only forks:
single-threaded, no database connection, no client. In on FD: one JSON message per worker with the worker's channel
end as a file descriptor. Out on FD: `ready`, `failed`. Workers are forked twice, so that they become children of the
server, which is the subreaper.
"""

from __future__ import annotations

import gc
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
from typing import Any, NoReturn

import psycopg
from sqlalchemy.orm import configure_mappers

from miq import log as logs
from miq import paths, plugins, process, settings_loader
from miq.channel import Channel
from miq.db import Database
from miq.launch import Launch
from miq.models.worker_types import worker_types
from miq.queue.methods import load_methods

log = logging.getLogger("miq.workers.mold")

#: seconds a worker waits for the process in the middle to leave
REPARENT_LIMIT = 5.0

#: the unit in which CPython's allocator gives out room for small objects of one size
_POOL = 1 << 14
#: what `fill_holes` keeps alive
_FILLINGS: list[list[bytes]] = []


def main(argv: list[str]) -> int:
    """Serve the server at the other end of file descriptor `argv[1]` until it goes away."""
    server_pid = int(argv[2])
    process.die_with_parent(server_pid)
    process.set_title("MIQ Mold")
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)  # it leaves at the end of its wire
    logs.configure(paths.home().log_file, os.environ.get("MIQ_LOG_LEVEL", "info"), terminal=False)
    with socket.socket(fileno=int(argv[1])) as wire:
        began = time.monotonic()
        broken = preload(argv[3:])
        freeze()
        try:
            wire.send(json.dumps({"kind": "ready", "seconds": time.monotonic() - began, "broken": broken}).encode())
        except ConnectionError:
            return 0  # the server has ended meanwhile
        serve(wire, server_pid)
    return 0


def preload(extra: list[str]) -> dict[str, str]:
    """Import runners, SDKs and the extra modules; what does not import is named with its error and left out."""
    broken: dict[str, str] = {}
    load_methods()
    configure_mappers()
    touch_database_client()
    settings_loader.defaults()
    for name, kind in worker_types().items():
        _attempt(broken, name, kind.runner_class)
    for record in plugins.providers().values():
        _attempt(broken, record.name, lambda record=record: plugins.load(f"{record.sdk}:warm")())
        for manager in record.managers:
            for reference in filter(None, (manager.inventory, manager.check)):
                _attempt(broken, record.name, lambda reference=reference: plugins.load(reference))
    for module in extra:
        _attempt(broken, module, lambda module=module: _touch(module))
    return broken


def touch_database_client() -> None:
    """Run the client's code once, against a server that cannot be there: what it imports lazily is shared then."""
    try:
        Database("host=/nonexistent dbname=miq").run("SELECT 1")
    except psycopg.OperationalError:
        return


def _touch(module: str) -> None:
    """Import a module and, if it has one, run its `warm()`."""
    loaded = importlib.import_module(module)
    warm = getattr(loaded, "warm", None)
    if callable(warm):
        warm()


def _attempt(broken: dict[str, str], name: str, act: Any) -> None:  # noqa: ANN401 - any callable
    try:
        act()
    except Exception as error:  # a plug-in's code: its own end and nobody else's
        broken[name] = f"{type(error).__name__}: {error}"
        log.error("MIQ(Mold.preload) %s does not import: %s", name, broken[name])


def freeze() -> None:
    """Put the whole heap out of the collector's sight, so that no collection in a child touches the shared pages."""
    gc.disable()
    gc.collect()
    fill_holes()
    gc.freeze()


def fill_holes() -> None:
    """Use up the free room between the small objects, so that new ones of a worker come to lie on pages of their own.

    The allocator hands out such room first; each piece of it would cost the worker a copy of the page around it. It is
    used up when what is allocated lies close together.
    """
    for size in range(48, 513, 16):
        pools = None
        while pools is None or len(pools) > 4:
            filling = [bytes(size - sys.getsizeof(b"")) for _ in range(2 * _POOL // size)]
            pools = {id(each) // _POOL for each in filling}
            _FILLINGS.append(filling)


def serve(wire: socket.socket, server_pid: int) -> None:
    """Fork one worker per message, until end-of-file.

    As little as possible happens here between two forks: a page that the mold touches is shared by no two workers.
    """
    while True:
        data, descriptors, _, _ = socket.recv_fds(wire, 65536, 1)
        if not data:
            return
        try:
            fork_worker(data, descriptors[0], wire, server_pid)
        except OSError as error:
            _refuse(wire, data, error)
        os.close(descriptors[0])


def _refuse(wire: socket.socket, data: bytes, error: OSError) -> None:
    wire.send(json.dumps({"kind": "failed", "guid": json.loads(data)["guid"], "error": str(error)}).encode())


def fork_worker(data: bytes, end: int, wire: socket.socket, server_pid: int) -> None:
    """Fork, and fork again; the process in the middle leaves at once and is waited for here. Raises OSError."""
    middle = os.fork()
    if middle:
        _, status = os.waitpid(middle, 0)
        if status:
            raise BlockingIOError("the second fork failed")
        return
    try:
        if os.fork():
            os._exit(0)
    except OSError:
        os._exit(1)
    be_worker(json.loads(data), end, wire, server_pid)


def be_worker(message: dict[str, Any], end: int, wire: socket.socket, server_pid: int) -> NoReturn:
    """The life of a worker, from the fork to `_exit`."""
    code = 1
    try:
        wire.close()
        os.setsid()
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        channel = Channel(socket.socket(fileno=end))
        if _adopted(server_pid):
            channel.send("forked", pid=os.getpid(), pid_start=process.start_time(os.getpid()))
            gc.enable()
            launch = Launch.from_json(message)
            code = runner_class(launch, channel)(launch, channel).start()
    except BaseException:
        log.error("MIQ(Mold.be_worker) %s", message.get("type_name"), exc_info=True)
    finally:
        logging.shutdown()
        os._exit(code)


def runner_class(launch: Launch, channel: Channel) -> Any:  # noqa: ANN401 - a runner
    """The class that runs the worker; the server is told when it does not import."""
    try:
        return launch.worker_type.runner_class()
    except Exception as error:  # a plug-in's code: its own end and nobody else's
        reason = f"{launch.worker_type.runner} does not import: {type(error).__name__}: {error}"
        channel.send("exiting", reason=reason[:1000])
        raise


def _adopted(server_pid: int) -> bool:
    """Wait until the server is our parent, then die with it; False when it is gone."""
    end = time.monotonic() + REPARENT_LIMIT
    while os.getppid() != server_pid:
        if time.monotonic() > end:
            return False
        time.sleep(0.0002)
    return process.die_with_parent(server_pid)


if __name__ == "__main__":
    sys.exit(main(sys.argv))
