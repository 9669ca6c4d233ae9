"""Patience made short, so that a test of the whole app takes as long as its requests and no longer."""

from datetime import timedelta

import pytest

from tusserve.hooks import _hint_at_409


@pytest.fixture(autouse=True)
def _short_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy stays as it is, only its seconds shrink, and all by about the same measure."""
    monkeypatch.setattr("tusserve.lease.GRACE", timedelta(seconds=0.4))
    monkeypatch.setattr("tusserve.body.SILENCE", 0.1)
    monkeypatch.setattr("tusserve.body.LOOKOUT", 0.05)
    monkeypatch.setattr("tusserve.body.ASK_STANDS", 0.4)
    monkeypatch.setattr("tusserve.answering.DROP_SECONDS", 0.5)


@pytest.fixture(autouse=True)
def _no_hint_was_given() -> None:
    """What is logged once in the life of a process was not logged before this test."""
    _hint_at_409.cache_clear()
