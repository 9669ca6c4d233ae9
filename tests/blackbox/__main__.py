"""`python -m tests.blackbox URL`: the checks against any server that is running, uploads left behind."""

import sys

from tests.blackbox.every_check import CHECKS
from tests.blackbox.target import Target


def main() -> int:
    """Run them all; 1 if one failed."""
    target = Target(sys.argv[1])
    failed = 0
    for check in CHECKS:
        try:
            check.run(target)
        except Exception as error:  # noqa: BLE001 - each failure is told, and the next check runs
            failed += 1
            print(f"FAILED {check}\n       {type(error).__name__}: {error}")
    print(f"{len(CHECKS) - failed} held, {failed} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
