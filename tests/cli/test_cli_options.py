"""The grammar of the command line's values: what is taken, and a sentence for everything else."""

import ipaddress
from datetime import timedelta
from pathlib import Path

import pytest

from tusserve.cli_options import (
    CommandError,
    parse_base_url,
    parse_duration,
    parse_extensions,
    parse_networks,
    parse_path,
    parse_port,
    parse_size,
    parse_state,
    parse_workers,
    read,
    read_expiry,
)
from tusserve.protocol.records import Expiry


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("52428800", 52428800),
        ("7B", 7),
        ("10kB", 10_000),
        ("10MB", 10_000_000),
        ("3GB", 3 * 10**9),
        ("2TB", 2 * 10**12),
        ("1KiB", 1024),
        ("5MiB", 5 * 1024**2),
        ("50GiB", 50 * 1024**3),
        ("1TiB", 1024**4),
        (str(2**63 - 1), 2**63 - 1),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert parse_size(text) == size


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "-1",
        "+5",
        "5_0",
        "1.5GiB",
        "50 GiB",
        "GiB",
        "50gib",
        "50G",
        "٣",
        " 5",
        "5\n",
        str(2**63),
        "8388608TiB",
    ],
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(CommandError, match=r"--max-size .or TUSSERVE_MAX_SIZE.: .* size"):
        read("--max-size", text, parse_size)


@pytest.mark.parametrize(
    ("text", "period"),
    [
        ("90s", timedelta(seconds=90)),
        ("30m", timedelta(minutes=30)),
        ("48h", timedelta(hours=48)),
        ("7d", timedelta(days=7)),
        ("36500d", timedelta(days=36500)),
        ("off", None),
    ],
)
def test_durations(text: str, period: timedelta | None) -> None:
    assert parse_duration(text) == period


@pytest.mark.parametrize(
    "text", ["", "0s", "7", "d", "-7d", "1.5h", "7 d", "7D", "1w", "OFF", "never", "36501d", "9" * 12 + "d"]
)
def test_what_is_no_duration(text: str) -> None:
    with pytest.raises(CommandError, match=r"--expire-idle .or TUSSERVE_EXPIRE_IDLE.: "):
        read("--expire-idle", text, parse_duration)


def test_expiry_is_whole_or_off() -> None:
    assert read_expiry("7d", "48h") == Expiry(initial=timedelta(days=7), idle=timedelta(hours=48))
    assert read_expiry("off", "off") is None
    for half in (("off", "48h"), ("7d", "off")):
        with pytest.raises(CommandError, match="both"):
            read_expiry(*half)


def test_ports() -> None:
    assert [parse_port(text) for text in ("0", "1080", "65535")] == [0, 1080, 65535]
    for text in ("", "65536", "-1", "http", "1e3", "８０"):
        with pytest.raises(ValueError, match="not a port"):
            parse_port(text)


def test_paths() -> None:
    assert parse_path("/files/") == parse_path("/files") == "/files"
    assert parse_path("/v1/up-loads") == "/v1/up-loads"
    for text in ("", "/", "files", "//files", "/a//b", "/a/../b", "/a b", "/a?b", "/a%2fb", "/a/./b"):
        with pytest.raises(ValueError, match="not a path"):
            parse_path(text)


def test_state() -> None:
    assert parse_state("sqlite:///uploads.db") == Path("uploads.db")
    assert parse_state("sqlite:////srv/up loads.db") == Path("/srv/up loads.db")
    for text in (
        "uploads.db",
        "sqlite:uploads.db",
        "sqlite://",
        "sqlite:///",
        "sqlite:///dir/",
        "postgres:///x",
    ):
        with pytest.raises(ValueError, match="sqlite:///"):
            parse_state(text)


def test_networks() -> None:
    assert parse_networks("10.0.0.0/8, 192.0.2.7") == (
        ipaddress.ip_network("10.0.0.0/8"),
        ipaddress.ip_network("192.0.2.7/32"),
    )
    private = parse_networks("private")
    for inside in ("127.0.0.1", "::1", "10.1.2.3", "172.31.0.1", "192.168.1.1", "fd00::1"):
        assert any(ipaddress.ip_address(inside) in network for network in private)
    for outside in ("8.8.8.8", "172.32.0.1", "2001:db8::1"):
        assert not any(ipaddress.ip_address(outside) in network for network in private)
    for text in ("", "*", "10.0.0.1/8", "proxy.example", "10.0.0.0/8,"):
        with pytest.raises(ValueError, match="not a network"):
            parse_networks(text)


def test_the_rest() -> None:
    assert parse_extensions("creation, termination") == ("creation", "termination")
    assert parse_base_url("https://uploads.example.com/") == "https://uploads.example.com"
    with pytest.raises(ValueError, match="no list"):
        parse_extensions("creation,,termination")
    for text in (
        "",
        "uploads.example.com",
        "ftp://x",
        "https://",
        "https://a b",
        "https://x?y",
        "https://u@x",
    ):
        with pytest.raises(ValueError, match="not an address"):
            parse_base_url(text)


def test_workers() -> None:
    assert [parse_workers(text) for text in ("1", "4", "256")] == [1, 4, 256]
    for text in ("", "0", "257", "-1", "two", "1.5", "٣"):
        with pytest.raises(ValueError, match="no number of workers"):
            parse_workers(text)
