"""What every command takes: the folder, and where its records are.

Owns how these two are written and read; opens nothing. The modules with commands use them.
"""

from pathlib import Path
from typing import Annotated, TypeAlias

import typer

from tusserve.cli_options import parse_folder, parse_state, read

Folder: TypeAlias = Annotated[
    str, typer.Argument(metavar="DIR", envvar="TUSSERVE_DIR", help="The folder where uploads land.")
]
State: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--state",
        envvar="TUSSERVE_STATE",
        metavar="URL",
        help="Where the records are kept: sqlite:///PATH, from the working directory, or sqlite:////PATH, "
        "from the root. Without it: tusserve.db in DIR.",
    ),
]


def places(folder: str, state: str | None) -> tuple[Path, Path]:
    """The folder, and the file with its records."""
    root = read("DIR", folder, parse_folder)
    return root, root / "tusserve.db" if state is None else read("--state", state, parse_state)
