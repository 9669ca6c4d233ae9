"""A skipped test fails the run where CI is set, and only there."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCES = {
    "by mark": "import pytest\n@pytest.mark.skip(reason='later')\ndef test_a(): pass\ndef test_b(): pass\n",
    "in the test": "import pytest\ndef test_a(): pytest.skip('later')\ndef test_b(): pass\n",
    "whole module": "import pytest\npytest.skip('later', allow_module_level=True)\n",
}
EXPECTED_FAILURE = "import pytest\n@pytest.mark.xfail\ndef test_a(): assert False\n"


def run(folder: Path, source: str, ci: str | None) -> subprocess.CompletedProcess[str]:
    (folder / "conftest.py").write_text((ROOT / "conftest.py").read_text())
    (folder / "pytest.ini").write_text("[pytest]\n")
    (folder / "test_one.py").write_text(source + ("" if "test_b" in source else "\ndef test_b(): pass\n"))
    (folder / "test_two.py").write_text("def test_c(): pass\n")
    env = {name: value for name, value in os.environ.items() if name not in ("CI", "PYTEST_ADDOPTS")}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    return subprocess.run(
        command, cwd=folder, env=env | ({"CI": ci} if ci else {}), capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize("how", SOURCES)
def test_a_skip_fails_in_ci(tmp_path: Path, how: str) -> None:
    done = run(tmp_path, SOURCES[how], "true")
    assert done.returncode == 1, done.stdout
    assert "test_one.py" in done.stdout
    assert " skipped" in done.stdout.splitlines()[-1]  # pytest's own closing line stays the last


def test_a_skip_elsewhere_does_not(tmp_path: Path) -> None:
    assert run(tmp_path, SOURCES["by mark"], None).returncode == 0


def test_an_expected_failure_is_no_skip(tmp_path: Path) -> None:
    assert run(tmp_path, EXPECTED_FAILURE, "true").returncode == 0
