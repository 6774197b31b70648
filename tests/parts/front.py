"""A real HTTP(S) server in front of an AWS: passes calls on, or refuses the ones that a test chooses.

`with front(target) as gate` listens on the loopback; `gate.refuse("DescribeImages", 403, "UnauthorizedOperation")`
makes it answer so, from the `after`th call of that action on. Without a target everything is refused. `gate.calls`
counts by action.
"""

from __future__ import annotations

import ssl
import threading
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import parse_qs, urlsplit

_ERROR = (
    '<?xml version="1.0" encoding="UTF-8"?><Response><Errors><Error><Code>{code}</Code><Message>{message}</Message>'
    "</Error></Errors><RequestID>0</RequestID></Response>"
)


@dataclass(frozen=True)
class Refusal:
    """How an action is refused, after so many that pass."""

    status: int
    code: str
    message: str
    after: int = 0


@dataclass
class Gate:
    """What a test tells the front, and what it saw."""

    target: str | None
    url: str = ""
    calls: Counter[str] = field(default_factory=Counter)
    refusals: dict[str, Refusal] = field(default_factory=dict)
    #: the actions, in order
    seen: list[str] = field(default_factory=list)
    #: called with the action before it is answered
    before: Callable[[str], None] = lambda action: None
    #: (action, answer) -> answer
    rewrite: Callable[[str, bytes], bytes] = lambda action, answer: answer

    def refuse(self, action: str, status: int, code: str, message: str = "You may not.", *, after: int = 0) -> None:
        """Refuse an action; `*` is any."""
        self.refusals[action] = Refusal(status, code, message, after)

    def answer(self, path: str, headers: dict[str, str], body: bytes) -> tuple[int, bytes]:
        """What one request gets."""
        action = parse_qs(body.decode()).get("Action", ["?"])[0]
        self.calls[action] += 1
        self.seen.append(action)
        self.before(action)
        refusal = self.refusals.get(action) or self.refusals.get("*")
        if refusal is not None and self.calls[action] > refusal.after:
            return refusal.status, _ERROR.format(code=refusal.code, message=refusal.message).encode()
        if self.target is None:
            return 500, b"<html>no</html>"
        request = urllib.request.Request(self.target + urlsplit(path).path, data=body, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, self.rewrite(action, response.read())
        except HTTPError as error:
            return error.code, error.read()


def _handler(gate: Gate) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            kept = {name: value for name, value in self.headers.items() if name not in ("Host", "Content-Length")}
            status, answer = gate.answer(self.path, kept, body)
            self.send_response(status)
            self.send_header("Content-Type", "text/xml")
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, format: str, *args: object) -> None:
            """Tests read `gate.seen`."""

    return Handler


class _Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """A client that does not like our certificate hangs up: that is the point."""


@contextmanager
def front(target: str | None, *, certificate: tuple[Path, Path] | None = None) -> Iterator[Gate]:
    """A running front; with a certificate and its key it speaks TLS."""
    gate = Gate(target)
    server = _Server(("127.0.0.1", 0), _handler(gate))
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    gate.url = f"{'https' if certificate else 'http'}://127.0.0.1:{server.server_address[1]}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
    thread.start()
    try:
        yield gate
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
