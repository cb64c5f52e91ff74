"""Every hint names the command in a form that works from where the user is."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from onecollector.cli.invocation import COMMANDS, as_pasted, command_name
from onecollector.cli.main import app


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    command = tmp_path / ".venv" / "bin" / "onecollector"
    command.parent.mkdir(parents=True)
    command.write_text("#!/bin/sh\n")
    command.chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", [str(command)])
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    return tmp_path


def test_in_a_checkout_it_is_the_path_from_here(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert as_pasted("nothing runs; start with: onecollector up") == (
        "nothing runs; start with: .venv/bin/onecollector up"
    )
    monkeypatch.chdir(checkout / ".venv" / "bin")
    assert command_name() == "./onecollector"
    (checkout / "elsewhere").mkdir()
    monkeypatch.chdir(checkout / "elsewhere")
    assert command_name() == str(checkout / ".venv/bin/onecollector")


def test_on_the_path_the_plain_name_stays(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", f"{checkout}/.venv/bin:/usr/bin:/bin")
    assert as_pasted("run: onecollector install loki") == "run: onecollector install loki"


@pytest.mark.parametrize(
    "text",
    ["/opt/onecollector up there", "the onecollector namespace", "namespace onecollector.", "sub-onecollector up"],
)
def test_what_is_no_command_stays(checkout: Path, text: str) -> None:
    assert as_pasted(text) == text


def test_every_command_is_known() -> None:
    named = {command.name for command in app.registered_commands} | {group.name for group in app.registered_groups}
    assert named == set(COMMANDS)


def test_an_error_of_the_real_command_can_be_pasted(tmp_path: Path) -> None:
    command = Path(sys.executable).parent / "onecollector"
    done = subprocess.run(
        [command, "status"],
        cwd=command.parents[1],
        env={"ONECOLLECTOR_STATE_DIR": str(tmp_path / "s"), "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        text=True,
        capture_output=True,
    )
    assert done.returncode == 2
    assert "run: bin/onecollector up" in done.stderr
