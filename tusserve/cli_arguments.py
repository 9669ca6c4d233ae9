"""What every command takes: the folder, and where its records are.

Owns how these two are written; opens nothing. The modules with commands use them.
"""

from typing import Annotated, TypeAlias

import typer

Folder: TypeAlias = Annotated[
    str, typer.Argument(metavar="DIR", envvar="TUSSERVE_DIR", help="The folder where uploads land.")
]
State: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--state",
        envvar="TUSSERVE_STATE",
        metavar="URL",
        help="Where the records are kept: sqlite:///PATH. Without it: tusserve.db in DIR.",
    ),
]
