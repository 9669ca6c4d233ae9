"""The commands that look after uploads: `tusserve ls`, `show` and `rm`.

Owns their options, and which ids a shell may complete; what they do is in `cli_look` and `cli_end`, imported
by the one command that needs it. `cli` adds them to its own.
"""

import asyncio
from typing import Annotated, TypeAlias

import typer

from tusserve import UploadState
from tusserve.cli_arguments import Folder, State, places
from tusserve.cli_options import CommandError, parse_count, parse_states, read


def complete_id(ctx: typer.Context, incomplete: str) -> list[str]:
    """The ids that begin like this, for a shell. Nothing at all where the folder cannot be read."""
    from tusserve.cli_look import ids_like

    folder, state = ctx.params.get("folder"), ctx.params.get("state")
    try:
        return asyncio.run(ids_like(*places(str(folder), state), incomplete)) if folder else []
    except Exception:  # noqa: BLE001 - somebody is typing: no sentence would be read, and a traceback less
        return []


Id: TypeAlias = Annotated[
    str, typer.Argument(metavar="ID", help="Which upload.", autocompletion=complete_id, show_default=False)
]
Ids: TypeAlias = Annotated[
    list[str],
    typer.Argument(metavar="ID...", help="Which ones.", autocompletion=complete_id, show_default=False),
]
AsJson: TypeAlias = Annotated[
    bool, typer.Option("--json", envvar="TUSSERVE_JSON", help="For programs: one JSON object an upload.")
]
Only: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--only",
        envvar="TUSSERVE_ONLY",
        metavar="STATE,...",
        help="Only uploads in these states: receiving, waiting, finishing, complete, ending, gone. Without "
        "it: all but those that are gone.",
    ),
]
Owner: TypeAlias = Annotated[
    str | None,
    typer.Option("--owner", envvar="TUSSERVE_OWNER", metavar="WHO", help="Only uploads of this owner."),
]
AppName: TypeAlias = Annotated[
    str,
    typer.Option(
        "--name", envvar="TUSSERVE_NAME", metavar="NAME", help="The uploads of the app with this name."
    ),
]
Limit: TypeAlias = Annotated[
    str | None,
    typer.Option("--limit", envvar="TUSSERVE_LIMIT", metavar="N", help="At most so many. Without it: all."),
]
After: TypeAlias = Annotated[
    str | None,
    typer.Option("--after", envvar="TUSSERVE_AFTER", metavar="ID", help="Go on after this id."),
]
Yes: TypeAlias = Annotated[
    bool, typer.Option("--yes", envvar="TUSSERVE_YES", help="Do not ask. Only a terminal is asked at all.")
]
Force: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--force",
        envvar="TUSSERVE_FORCE",
        help="Also uploads of an application with hooks: their end is decided now, and the application "
        "carries it out.",
    ),
]


def ls(
    folder: Folder,
    only: Only = None,
    owner: Owner = None,
    limit: Limit = None,
    after: After = None,
    name: AppName = "default",
    as_json: AsJson = False,
    state: State = None,
) -> None:
    """List the uploads in DIR, and how far each is.

    By id, with the age, the rate and when it expires. Looks at the records only and disturbs
    nobody: the server may be running.
    """
    if state is not None and state.upper() in frozenset(UploadState):
        raise CommandError("--state says where the records are; uploads in one state are listed by --only")
    from tusserve.cli_look import Wanted, list_uploads

    wanted = Wanted(
        name=name,
        states=None if only is None else read("--only", only, parse_states),
        owner=owner,
        after=after,
        limit=None if limit is None else read("--limit", limit, parse_count),
    )
    list_uploads(*places(folder, state), wanted, as_json=as_json)


def show(folder: Folder, id: Id, as_json: AsJson = False, state: State = None) -> None:
    """Tell everything that is known of one upload in DIR. Exits with 1 if there is none."""
    from tusserve.cli_look import show_upload

    raise typer.Exit(show_upload(*places(folder, state), id, as_json=as_json))


def rm(folder: Folder, ids: Ids, yes: Yes = False, force: Force = False, state: State = None) -> None:
    """End uploads in DIR, whoever writes to them, and remove their bytes.

    As if a client had terminated them: a running server lets go, and answers 410 from then on. Exits with 1
    if one of them was not ended.
    """
    from tusserve.cli_end import end_uploads

    raise typer.Exit(end_uploads(*places(folder, state), ids, ask=not yes, force=force))
