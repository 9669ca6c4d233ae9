"""200 kills -9 at random instants of a server that receives: nothing acknowledged is lost or corrupt.

Prints how soon the first HEAD after each start was answered. Run: uv run python -m benchmarks.kill9
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from tests.server.kills import survive

PER_UPLOAD = 50


def main() -> None:
    """Kill, and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--kills", type=int, default=200)
    wanted = options.parse_args()
    waits: list[float] = []
    with tempfile.TemporaryDirectory(prefix="tusserve-kill9-") as place:
        while len(waits) < wanted.kills:
            kills = min(PER_UPLOAD, wanted.kills - len(waits))
            folder = Path(place) / str(len(waits))
            waits += survive(folder, kills=kills, seed=len(waits), size=kills * 1024 * 1024)
    print(f"{len(waits)} kills: every byte that was acknowledged is there, every digest is right")
    median, worst = 1000 * statistics.median(waits), 1000 * max(waits)
    print(f"first HEAD after a start: median {median:.1f} ms, worst {worst:.1f} ms")


if __name__ == "__main__":
    main()
