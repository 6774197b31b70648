"""Other queues beside ours, for information: the harness in `../shared/bench`, when its peers are installed.

`BENCH_HOME` (default `~/.cache/miq-bench`) is what the harness's `setup.sh` and `pg.sh start` have made; without it
this says so and ends well. One interleaved round, each peer at its best; PEERS narrows them. No figure and no bar: the
ratios depend on what else is installed, and go to standard error.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.figures import progress

CHECKOUT = Path(__file__).resolve().parent.parent
HARNESS = CHECKOUT.parent / "shared" / "bench" / "queues" / "bench.py"
OURS, CONFIG, SIZE, CAP = "miq_py", "best", 20_000, 10
PEERS = f"{OURS},graphile,pgboss,pgqueuer,pgmq,minimal"

Result = dict[str, Any]


def prepared(home: Path) -> bool:
    """Whether the peers are installed and their PostgreSQL runs."""
    return HARNESS.exists() and (home / "venv/bin/python").exists() and (home / "pg/data/postmaster.pid").exists()


def run(home: Path, out: Path, *arguments: str) -> None:
    """One verb of the harness, with us among the peers."""
    ours = f"{OURS}={sys.executable} {CHECKOUT / 'benchmarks' / 'peer_adapter.py'}"
    environment = {**os.environ, "BENCH_HOME": str(home), "OUT": str(out), "EXTRA_PEERS": ours}
    python = str(home / "venv/bin/python")
    subprocess.run([python, str(HARNESS), *arguments], env=environment, stdout=sys.stderr, check=True)


def compare(results: list[Result], test: str, rate: str, **only: str) -> None:
    """What each peer reached, and how many times as much we did."""
    rates: dict[str, float] = {
        each["peer"]: each[rate]
        for each in results
        if each["test"] == test and only.items() <= each.items() and rate in each
    }
    for peer, value in sorted(rates.items(), key=lambda item: -item[1]):
        times = rates[OURS] / value if value else float("inf")
        progress(f"{test} {' '.join(only.values())} {peer:<14} {value:>12,.1f} /s   ours is {times:.2f} times that")


def main() -> int:
    """Enqueue and drain, or nothing."""
    home = Path(os.environ.get("BENCH_HOME", Path.home() / ".cache" / "miq-bench"))
    if not prepared(home):
        progress(f"{home} has no peers that run: only the featureless loop was measured")
        return 0
    peers = os.environ.get("PEERS", PEERS)
    with tempfile.TemporaryDirectory(prefix="miq-peers-") as folder:
        out = Path(folder) / "results.jsonl"
        run(home, out, "prepare", "0", peers)
        run(home, out, "prepare", str(SIZE), peers)
        run(home, out, "enqueue", "1000", str(SIZE), "1", peers)
        run(home, out, "drain", str(SIZE), str(CAP), "1", peers, CONFIG, "1")
        results: list[Result] = [json.loads(line) for line in out.read_text().splitlines()]
    compare(results, "enqueue", "rate", mode="single")
    compare(results, "enqueue", "rate", mode="batch")
    compare(results, "drain", "rate", config=CONFIG)
    return 0


if __name__ == "__main__":
    sys.exit(main())
