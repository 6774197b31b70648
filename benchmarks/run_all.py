"""`make bench`: every benchmark, or those of one issue, one after the other, and a table of their figures."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys

#: which benchmark belongs to which theme
THEMES = {
    "A": ["supervision", "amazon_refresh"],
    "B": ["queue_drain", "queue_cost", "queue_put", "queue_latency", "queue_crash", "queue_reliability", "queue_peers"],
}


def figures_of(name: str) -> list[dict[str, object]]:
    """Run one benchmark; its figures, and a failed one when it ended badly without any."""
    print(f"== {name}", file=sys.stderr, flush=True)
    done = subprocess.run([sys.executable, "-m", f"benchmarks.{name}"], stdout=subprocess.PIPE, text=True)
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"figure"')]
    if found or done.returncode == 0:
        return found
    return [{"figure": f"{name} (exit code {done.returncode})", "value": None, "unit": "", "bar": None, "ok": False}]


def main() -> int:
    """Run them; 0 when every bar holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--issue", choices=sorted(THEMES), help="only this theme")
    issue = parser.parse_args().issue
    names = [name for theme, listed in THEMES.items() if issue in (None, theme) for name in listed]
    figures = [figure for name in names for figure in figures_of(name)]
    for figure in figures:
        print(json.dumps(figure))
    print(f"\n{'figure':<28} {'value':>12} {'unit':<8} {'bar':>10}  ok")
    for figure in figures:
        print(
            f"{figure['figure']:<28} {figure['value']!s:>12} {figure['unit']:<8} {figure['bar']!s:>10}  {figure['ok']}"
        )
    return 0 if all(figure["ok"] for figure in figures) else 1


if __name__ == "__main__":
    sys.exit(main())
