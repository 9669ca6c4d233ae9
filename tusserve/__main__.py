"""The door of the command: `tusserve` and `python -m tusserve`.

Owns only the check that the extra `server` is there, so that a lean install gets a sentence and no traceback.
"""

import sys
from importlib.util import find_spec

_NEEDED = ("typer", "rich", "uvicorn")


def main() -> None:
    """Run the command line on `sys.argv` and leave with its exit code; 2 without the extra `server`."""
    missing = [name for name in _NEEDED if find_spec(name) is None]
    if missing:
        print(
            f"tusserve: the command needs {', '.join(missing)}; install them in the project's folder with "
            "pip install '.[server]'",
            file=sys.stderr,
        )
        sys.exit(2)
    from tusserve.cli import run

    sys.exit(run(sys.argv[1:]))


if __name__ == "__main__":
    main()
