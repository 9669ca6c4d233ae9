"""The reference says what the code does: each code, parameter, hook, option and clause, and no other."""

import inspect
import re
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import get_type_hints

import pytest
from typer.models import ArgumentInfo, OptionInfo

import tusserve
import tusserve.cli as cli
from tusserve import (
    Accepted,
    Expiry,
    MemoryStorage,
    MemoryStore,
    SweepReport,
    Timeouts,
    TusApp,
    Upload,
    cli_logging,
    contracts,
    errors,
)
from tusserve.cli_uploads import ls, rm, show
from tusserve.cli_words import everything
from tusserve.config import Settings, utc_now
from tusserve.protocol import life
from tusserve.protocol.tus1 import ANSWERS, EXTENSIONS
from tusserve.upload import Shelf

DOCS = Path(__file__).parent.parent.parent / "docs"
HOOKS = (
    "authorize on_create on_first_chunk on_complete on_terminate observe render_error".split()  # noqa: SIM905
)


def rows(page: str, section: str = "") -> list[list[str]]:
    """The cells of each table row of a page, or of one of its sections, without heads and rules."""
    text = (DOCS / page).read_text()
    if section:
        text = re.split(r"^## ", text.split(f"## {section}\n", 1)[1], flags=re.MULTILINE)[0]
    tables = re.findall(r"(?:^\|.*\|\n)+", text, re.MULTILINE)
    lines = [line for table in tables for line in table.splitlines()[2:]]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def named(cell: str) -> str:
    """The first word in code style of a cell."""
    return cell.split("`")[1]


def test_every_error_code_with_status_and_sentence() -> None:
    told = {
        named(cells[0]): (int(cells[1]), cells[2]) for cells in rows("reference/errors.md") if len(cells) == 3
    }
    assert told == {code.value: answer for code, answer in ANSWERS.items()}


def test_every_exception() -> None:
    told = {named(cells[0]): cells[1] for cells in rows("reference/errors.md", "Exceptions")}
    assert set(told) == set(errors.__all__) - {"Rejected", "TusError"}
    for name, sentence in told.items():
        assert sentence == " ".join((inspect.getdoc(getattr(errors, name)) or "").split())


def test_every_parameter_with_its_default() -> None:
    text = (DOCS / "reference/settings.md").read_text().split("\n## ")[0]
    told = {named(line.split("|")[1]): line.split("|")[2] for line in text.splitlines() if "| `" in line}
    parameters = dict(inspect.signature(TusApp.__init__).parameters)
    del parameters["self"]
    assert list(told) == list(parameters)
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty:
            assert told[name].strip() == ""
        elif isinstance(parameter.default, str | int | None) and name != "max_size":
            assert told[name].strip(" `") in (repr(parameter.default), f'"{parameter.default}"'), name
    assert told["max_size"].strip() == f"{Settings().max_size // 1024**3} GiB"
    listed = re.search(r"^The extensions: ([^.]*)\.$", text, re.MULTILINE)
    assert listed is not None
    assert re.findall("`([^`]+)`", listed[1]) == sorted(EXTENSIONS)


@pytest.mark.parametrize("kind", [Expiry, Timeouts])
def test_every_field(kind: type[Expiry] | type[Timeouts]) -> None:
    told = rows("reference/settings.md", f"`{kind.__name__}`")
    assert [named(cells[0]) for cells in told] == [field.name for field in fields(kind)]
    for cells in told:
        default = getattr(kind(), named(cells[0]))
        if default is None:
            assert cells[1] == "None"
            continue
        number, unit = cells[1].split()
        assert default.total_seconds() == int(number) * {"s": 1, "days": 86400}[unit]


def test_every_method_of_the_app() -> None:
    told = {
        re.split(r"[ (]", named(cells[0]).removeprefix("await "))[0].removeprefix("app.")
        for cells in rows("reference/settings.md", "What an app has")
    }
    assert told == {name for name in vars(TusApp) if not name.startswith("_")}


def test_every_property_of_an_upload() -> None:
    text = (DOCS / "reference/hooks.md").read_text().split("## `Upload`")[1]
    told = {name.split("(")[0] for name in re.findall("`([a-z_]+(?:\\([a-z, ]*\\))?)`", text)}
    assert {name for name in vars(Upload) if not name.startswith("_")} <= told


def test_every_hook() -> None:
    table = [cells for cells in rows("reference/hooks.md") if len(cells) == 5]
    assert [named(cells[0]) for cells in table] == HOOKS
    assert set(HOOKS) <= set(inspect.signature(TusApp.__init__).parameters)
    accepted = " ".join(cells[0] for cells in rows("reference/hooks.md", "`Accepted`"))
    assert set(re.findall("`([a-z_]+)`", accepted)) == {field.name for field in fields(Accepted)}


def options(command: Callable[..., None]) -> dict[str, tuple[str, str]]:
    """The flags of a command, each with its variable and its default as it would be typed."""
    found = {}
    for name, parameter in inspect.signature(command).parameters.items():
        info = get_type_hints(command, include_extras=True)[name].__metadata__[0]
        if isinstance(info, ArgumentInfo):
            continue
        assert isinstance(info, OptionInfo)
        declared = (
            info.default,
            *(info.param_decls or ()),
        )  # inside Annotated a flag comes first, as `default`
        flag, variable = str(declared[0]).split("/")[0], info.envvar
        assert variable == "TUSSERVE_" + flag.removeprefix("--").upper().replace("-", "_")
        found[flag] = (variable, "" if parameter.default in (None, False) else str(parameter.default))
    return found


TOLD_OTHERWISE = {"--extensions": "all", "--state": "DIR/tusserve.db"}


def test_every_option_of_serve() -> None:
    told = {
        re.split(r"[\[/]", named(cells[0]))[0]: (named(cells[1]), cells[2])
        for cells in rows("reference/command-line.md", "`tusserve serve DIR`")
    }
    assert told == {
        flag: (variable, TOLD_OTHERWISE.get(flag, default))
        for flag, (variable, default) in options(cli.serve).items()
    }


def test_every_option_of_sweep() -> None:
    page = (DOCS / "reference/command-line.md").read_text()
    text = page.split("## `tusserve sweep DIR`")[1].split("## ")[0]
    told = set(re.findall("`(--[a-z-]+)`", text))
    assert told == set(options(cli.sweep))
    for flag, (variable, default) in options(cli.sweep).items():
        assert variable in page
        assert options(cli.serve).get(flag, (variable, default)) == (variable, default)


@pytest.mark.parametrize(("command", "usage"), [(ls, "ls DIR"), (show, "show DIR ID"), (rm, "rm DIR ID...")])
def test_every_option_of_the_operators(command: Callable[..., None], usage: str) -> None:
    told = {
        named(cells[0]).split()[0]: named(cells[1])
        for cells in rows("reference/command-line.md", f"`tusserve {usage}`")
        if cells[0].startswith("`--")
    }
    assert told == {flag: variable for flag, (variable, _) in options(command).items()}


def test_every_field_of_an_upload_that_is_shown() -> None:
    record, shelf = (
        life.open_upload(
            id="x",
            name="default",
            owner=None,
            length=1,
            max_size=1,
            metadata=None,
            gated=False,
            now=utc_now(),
            expiry=None,
        ),
        Shelf(MemoryStorage(), MemoryStore()),
    )
    told = {
        name
        for cells in rows("how-to/look-after-uploads.md", "What is told of an upload")
        for name in re.findall("`([a-z_]+)`", cells[0])
    }
    assert told == set(everything(record, None, shelf, utc_now()))


def test_every_field_of_a_log_line() -> None:
    page = (DOCS / "how-to/serve.md").read_text().split("## Logs")[1].split("There is no access log")[0]
    told = set(re.findall(r"`([a-z]+)`", page))
    assert told == {*"time level logger message error".split(), *cli_logging._FIELDS.values()}  # noqa: SIM905


def test_every_line_of_a_sweep() -> None:
    assert [named(cells[0]) for cells in rows("how-to/sweep.md")] == [f.name for f in fields(SweepReport)]


def test_every_clause_word_for_word() -> None:
    text = contracts.__doc__ or ""
    clauses = re.findall(r"^    ([BU]\d+) +(.*?)(?=^    [BU]\d|^\S|\Z)", text, re.MULTILINE | re.DOTALL)
    told = [cells for cells in rows("reference/contracts.md") if re.fullmatch(r"[BU]\d+", cells[0])]
    assert told == [[number, " ".join(words.split())] for number, words in clauses]


def test_every_method_of_the_contracts() -> None:
    told = {
        named(cells[0]).split("(")[0] for cells in rows("reference/contracts.md") if cells[0].startswith("`")
    }
    for protocol in (contracts.StorageBackend, contracts.UploadStore):
        assert {name for name in vars(protocol) if not name.startswith("_")} <= told


def test_every_ability() -> None:
    told = {
        named(cells[0]): (cells[1], named(cells[2])) for cells in rows("reference/contracts.md", "Abilities")
    }
    for name, (_, method) in told.items():
        assert callable(getattr(getattr(contracts, name), method))
    protocols = {
        name for name in contracts.__all__ if getattr(getattr(contracts, name), "_is_protocol", False)
    }
    assert set(told) == protocols - {"CursorOf", "StorageBackend", "UploadStore", "Writer"}


def test_every_public_name_is_told_of() -> None:
    pages = "\n".join(page.read_text() for page in DOCS.rglob("*.md"))
    assert [name for name in tusserve.__all__ if not re.search(rf"\b{name}\b", pages)] == []
