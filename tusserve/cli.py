"""The command line: `tusserve serve DIR`, `sweep`, and what `cli_uploads` adds.

Owns these two commands, their options and how a failure is told: one sentence, exit code 2, no traceback.
Knows the app by its public names. `__main__` calls `run`, once the extra `server` is known to be there.
"""

import sys
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Final, TypeAlias, cast

import typer
from rich.console import Console
from rich.text import Text

from tusserve.cli_arguments import Folder, State
from tusserve.cli_options import (
    PRIVATE,
    AppOptions,
    CommandError,
    Durability,
    LogFormat,
    ServeOptions,
    parse_base_url,
    parse_choice,
    parse_extensions,
    parse_networks,
    parse_origins,
    parse_path,
    parse_port,
    parse_size,
    parse_state,
    parse_workers,
    read,
    read_expiry,
)
from tusserve.cli_uploads import ls, rm, show

_UsageError: Final[type[Exception]] = cast("type[Exception]", typer.BadParameter.__bases__[0])
"""What the parser raises for a wrong flag. Typer gives it no public name, and its home has moved."""

_PROXY_FLAG: Final = "--behind-proxy"

cli: Final = typer.Typer(
    name="tusserve",
    pretty_exceptions_enable=False,
    rich_markup_mode="rich" if sys.stdout.isatty() else None,  # frames are for people, not for pipes
)

DurabilityOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--durability",
        envvar="TUSSERVE_DURABILITY",
        metavar="full|checkpoint|none",
        help="What an acknowledged byte survives: a loss of power (full), a killed process and, up to the "
        "last checkpoint, a loss of power (checkpoint), a killed process (none).",
    ),
]
ExpireInitial: TypeAlias = Annotated[
    str,
    typer.Option(
        "--expire-initial",
        envvar="TUSSERVE_EXPIRE_INITIAL",
        metavar="PERIOD",
        help="How long an upload may wait for its first byte, as in 7d; off: for ever.",
    ),
]
ExpireIdle: TypeAlias = Annotated[
    str,
    typer.Option(
        "--expire-idle",
        envvar="TUSSERVE_EXPIRE_IDLE",
        metavar="PERIOD",
        help="How long an unfinished upload may rest after a byte came, as in 48h; off: for ever.",
    ),
]
Host: TypeAlias = Annotated[
    str, typer.Option("--host", envvar="TUSSERVE_HOST", metavar="HOST", help="The address to listen on.")
]
Port: TypeAlias = Annotated[
    str,
    typer.Option("--port", envvar="TUSSERVE_PORT", metavar="PORT", help="The port; 0: any that is free."),
]
PublicPath: TypeAlias = Annotated[
    str, typer.Option("--path", envvar="TUSSERVE_PATH", metavar="PATH", help="The path of uploads.")
]
MaxSize: TypeAlias = Annotated[
    str,
    typer.Option(
        "--max-size", envvar="TUSSERVE_MAX_SIZE", metavar="SIZE", help="The most bytes an upload may have."
    ),
]
Extensions: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--extensions",
        envvar="TUSSERVE_EXTENSIONS",
        metavar="A,B,...",
        help="The protocol extensions to offer. Without it: all there are.",
    ),
]
BaseUrl: TypeAlias = Annotated[
    str | None,
    typer.Option(
        "--base-url",
        envvar="TUSSERVE_BASE_URL",
        metavar="URL",
        help="How clients reach this server from outside; makes each Location absolute.",
    ),
]
BehindProxy: TypeAlias = Annotated[
    str | None,
    typer.Option(
        _PROXY_FLAG,
        envvar="TUSSERVE_BEHIND_PROXY",
        metavar="[=CIDR,...]",
        help="Believe X-Forwarded-Proto, -Host and -For from these networks; without a value, or with the "
        f"word {PRIVATE}, from this machine and the private ranges.",
    ),
]
Workers: TypeAlias = Annotated[
    str,
    typer.Option(
        "--workers",
        envvar="TUSSERVE_WORKERS",
        metavar="N",
        help="How many processes serve. With several, SIGHUP replaces them one after the other.",
    ),
]
CorsOrigin: TypeAlias = Annotated[
    list[str] | None,
    typer.Option(
        "--cors-origin",
        envvar="TUSSERVE_CORS_ORIGIN",
        metavar="ORIGIN",
        help="Let pages of this origin use the server, as in https://app.example.com; *: of every origin. "
        "May be repeated.",
    ),
]
DownloadOption: TypeAlias = Annotated[
    bool,
    typer.Option(
        "--download/--no-download",
        envvar="TUSSERVE_DOWNLOAD",
        help="Give complete uploads out by GET to everybody who knows their address.",
    ),
]
LogFormatOption: TypeAlias = Annotated[
    str,
    typer.Option(
        "--log-format",
        envvar="TUSSERVE_LOG_FORMAT",
        metavar="text|json",
        help="How to log to standard error: lines for people, or one JSON object a line.",
    ),
]
DryRun: TypeAlias = Annotated[
    bool, typer.Option("--dry-run", envvar="TUSSERVE_DRY_RUN", help="Only count what would be done.")
]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"tusserve {version('tusserve')}")
        raise typer.Exit


@cli.callback()
def _root(
    show_version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and leave."
        ),
    ] = False,
) -> None:
    """Resumable uploads over TUS 1.0.0. Every option can also be set by the variable named beside it."""


@cli.command()
def serve(
    folder: Folder,
    host: Host = "127.0.0.1",
    port: Port = "1080",
    path: PublicPath = "/files/",
    max_size: MaxSize = "50GiB",
    expire_initial: ExpireInitial = "7d",
    expire_idle: ExpireIdle = "48h",
    extensions: Extensions = None,
    durability: DurabilityOption = "full",
    state: State = None,
    base_url: BaseUrl = None,
    behind_proxy: BehindProxy = None,
    cors_origin: CorsOrigin = None,
    download: DownloadOption = False,
    log_format: LogFormatOption = "text",
    workers: Workers = "1",
) -> None:
    """Receive uploads into DIR until told to stop (SIGTERM or Ctrl-C)."""
    options = ServeOptions(
        host=host,
        port=read("--port", port, parse_port),
        path=read("--path", path, parse_path),
        max_size=read("--max-size", max_size, parse_size),
        extensions=None if extensions is None else read("--extensions", extensions, parse_extensions),
        base_url=None if base_url is None else read("--base-url", base_url, parse_base_url),
        cors_origins=read("--cors-origin", ",".join(cors_origin), parse_origins) if cors_origin else None,
        downloads=download,
        proxies=None if behind_proxy is None else read(_PROXY_FLAG, behind_proxy, parse_networks),
        log_format=cast("LogFormat", read("--log-format", log_format, parse_choice("text", "json"))),
        workers=read("--workers", workers, parse_workers),
    )
    app_options = _app_options(folder, state, durability, expire_initial, expire_idle)
    # The server's packages are imported by the one command that needs them.
    from tusserve.cli_serve import serve_folder

    serve_folder(app_options, options)


@cli.command()
def sweep(
    folder: Folder,
    dry_run: DryRun = False,
    expire_initial: ExpireInitial = "7d",
    expire_idle: ExpireIdle = "48h",
    durability: DurabilityOption = "full",
    state: State = None,
) -> None:
    """End what has expired in DIR, retry what is unfinished, remove bytes that nothing names; then leave.

    Exits with 1 if something failed. `serve` does the same by itself once a minute.
    """
    app_options = _app_options(folder, state, durability, expire_initial, expire_idle)
    from tusserve.cli_sweep import sweep_folder

    raise typer.Exit(sweep_folder(app_options, dry_run=dry_run))


for command in (ls, show, rm):
    cli.command()(command)


def _app_options(
    folder: str, state: str | None, durability: str, expire_initial: str, expire_idle: str
) -> AppOptions:
    root = Path(folder)
    levels = parse_choice("full", "checkpoint", "none")
    return AppOptions(
        folder=root,
        state=root / "tusserve.db" if state is None else read("--state", state, parse_state),
        durability=cast("Durability", read("--durability", durability, levels)),
        expiry=read_expiry(expire_initial, expire_idle),
    )


def run(arguments: Sequence[str]) -> int:
    """Carry out what was typed after the command's name; returns the exit code."""
    # The flag may stand alone, which the parser does not know: alone it means the private networks.
    typed = [f"{_PROXY_FLAG}={PRIVATE}" if word == _PROXY_FLAG else word for word in arguments]
    try:
        done = cli(args=typed or ["--help"], prog_name="tusserve", standalone_mode=False)
    except CommandError as error:
        return _refuse(str(error))
    except _UsageError as error:
        sentence = error.format_message() if hasattr(error, "format_message") else str(error)
        return _refuse(sentence) if sentence else 2
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return done if isinstance(done, int) else 0


def _refuse(sentence: str) -> int:
    console = Console(file=sys.stderr, highlight=False)
    console.print(Text.assemble(("tusserve:", "bold red"), " ", " ".join(sentence.split())), soft_wrap=True)
    return 2
