"""`miq-server`: the daemon, in the foreground.

systemd, `make run` or a terminal starts it; SIGTERM or Ctrl-C stops it.
"""

from __future__ import annotations

import os
import sys

from miq import log, paths, settings_loader
from miq.db import normal_dsn
from miq.errors import UsageError
from miq.postgres import EmbeddedPostgres
from miq.server.evm_server import EvmServer
from miq.workers.bin.arguments import Arguments


def main(argv: list[str] | None = None) -> int:
    """Run the server; 0 after a clean stop, 1 after a kill, 2 when it cannot start."""
    parser = Arguments("miq-server", "Starts and supervises the workers of one appliance.")
    parser.add_argument("--foreground-log", action="store_true", help="log to standard error too, not only to evm.log")
    options = parser.parse_args(argv)
    log.hold_back()
    try:
        return _serve(options.foreground_log)
    except UsageError as error:
        print(f"miq-server: {error}", file=sys.stderr)
        return 2


def _serve(terminal: bool) -> int:
    home = paths.home().make()
    settings = settings_loader.check(settings_loader.local(home))
    log.configure(home.log_file, settings.get("log.level"), terminal=terminal)
    dsn = os.environ.get("DATABASE_URL")
    if dsn:
        return EvmServer(home, normal_dsn(dsn), None).run()
    postgres = EmbeddedPostgres(home)
    try:
        return EvmServer(home, postgres.acquire(), postgres).run()
    finally:
        postgres.release()


if __name__ == "__main__":
    sys.exit(main())
