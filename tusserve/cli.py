"""The command line: `tusserve serve DIR`, `sweep`, and what `cli_uploads` adds.

Owns these two commands, their options and how a failure is told: one sentence, exit code 2, no traceback.
Knows the app by its public names. `__main__` calls `run`, once the extra `server` is known to be there.
"""

import sys
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from itertools import pairwise
from typing import Annotated, Final, TypeAlias, cast

import typer
from rich.console import Console
from rich.text import Text

from tusserve.cli_arguments import Folder, State, places
from tusserve.cli_options import (
    PRIVATE,
    AppOptions,
    CommandError,
    Durability,
    LogFormat,
    Network,
    ServeOptions,
    parse_base_url,
    parse_choice,
    parse_extensions,
    parse_networks,
    parse_origins,
    parse_path,
    parse_port,
    parse_size,
    parse_workers,
    read,
    read_expiry,
)
from tusserve.cli_output import give_up_output, is_of_output, print_anything
from tusserve.cli_uploads import ls, rm, show

_UsageError: Final[type[Exception]] = cast("type[Exception]", typer.BadParameter.__bases__[0])
"""What the parser raises for a wrong flag. Typer gives it no public name, and its home has moved."""

_PROXY_FLAG: Final = "--behind-proxy"

cli: Final = typer.Typer(
    name="tusserve",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["--help", "-h"]},
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
        f"word {PRIVATE}, from this machine and the private ranges. A value needs the = before it.",
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
    """Resumable uploads over TUS 1.0.0. The options of a command can also be set by variables, which its
    own --help names."""


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
        proxies=None if behind_proxy is None else _proxies(behind_proxy, folder),
        log_format=cast("LogFormat", read("--log-format", log_format, parse_choice("text", "json"))),
        workers=read("--workers", workers, parse_workers),
    )
    _refuse_path_in(options)
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
    """End what has expired in DIR and retry what is due, once.

    Bytes that nothing names are removed, too. Exits with 1 if something failed. `serve` does the same by
    itself once a minute.
    """
    app_options = _app_options(folder, state, durability, expire_initial, expire_idle)
    from tusserve.cli_sweep import sweep_folder

    raise typer.Exit(sweep_folder(app_options, dry_run=dry_run))


for command in (ls, show, rm):
    cli.command()(command)


def _app_options(
    folder: str, state: str | None, durability: str, expire_initial: str, expire_idle: str
) -> AppOptions:
    root, records = places(folder, state)
    levels = parse_choice("full", "checkpoint", "none")
    return AppOptions(
        folder=root,
        state=records,
        durability=cast("Durability", read("--durability", durability, levels)),
        expiry=read_expiry(expire_initial, expire_idle),
    )


def _proxies(typed: str, folder: str) -> tuple[Network, ...]:
    """Whom to believe. Not everybody in private networks because somebody left out a sign."""
    with suppress(ValueError):
        parse_networks(folder)
        raise CommandError(
            f"{folder!r} was taken for DIR: write {_PROXY_FLAG}={folder}, without a space; "
            f"a folder of that name is ./{folder}"
        )
    return read(_PROXY_FLAG, typed, parse_networks)


def _refuse_path_in(options: ServeOptions) -> None:
    """The path of uploads follows the base URL by itself: with both, each Location would have it twice."""
    base = options.base_url
    if base is not None and base.endswith(options.path):
        raise CommandError(
            f"--base-url has no {options.path}/ at its end, which --path adds: write "
            f"{base.removesuffix(options.path)}"
        )


def run(arguments: Sequence[str]) -> int:
    """Carry out what was typed after the command's name; returns the exit code."""
    # The flag may stand alone, which the parser does not know: alone it means the private networks.
    typed = [f"{_PROXY_FLAG}={PRIVATE}" if word == _PROXY_FLAG else word for word in arguments]
    print_anything()
    try:
        done = cli(args=typed or ["--help"], prog_name="tusserve", standalone_mode=False)
        print(end="", flush=True)  # here, where a failure is a sentence
    except CommandError as error:
        return _refuse(str(error))
    except _UsageError as error:
        sentence = error.format_message() if hasattr(error, "format_message") else str(error)
        return _refuse(_with_advice(sentence, error, arguments)) if sentence else 2
    except OSError as error:
        if not is_of_output(error):
            raise
        give_up_output()
        return _refuse(f"standard output cannot be written to: {error.strerror}")
    except (KeyboardInterrupt, typer.Abort):
        return 130
    return done if isinstance(done, int) else 0


def _with_advice(sentence: str, error: Exception, arguments: Sequence[str]) -> str:
    """What a wrong word was probably meant to be, and where the right ones are."""
    for flag, word in pairwise(arguments):
        if flag == _PROXY_FLAG and f"({word}" in sentence:
            return f"{sentence}: write {_PROXY_FLAG}={word}, without a space"
    command = getattr(getattr(error, "ctx", None), "command_path", "tusserve")
    return f"{sentence.rstrip('.')}; see {command} --help"


def _refuse(sentence: str) -> int:
    console = Console(file=sys.stderr, highlight=False)
    console.print(Text.assemble(("tusserve:", "bold red"), " ", " ".join(sentence.split())), soft_wrap=True)
    return 2
