"""Mending known faults of a part's pinned version when it is built: one statement of one file is moved, or one line changed.

``mends.yaml`` beside the module files says which. The module is copied from the one that go.sum pins, so nothing else
differs from what was published; where the statement is not found as expected, the build fails rather than bring a part
with a fault that we say it has not.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml


class MendFailed(RuntimeError):
    """The source is not the one that a mend was made for; the message says what was expected."""


@dataclass(frozen=True, slots=True)
class Move:
    """In ``function`` of a module's ``file`` the statement that begins with ``move``, with the ``if`` on its error behind
    it, goes ``before`` the line that is given. Lines are compared without their indent.
    """

    module: str
    file: str
    function: str
    move: str
    before: str

    @property
    def expected(self) -> str:
        """What the function must hold."""
        return f"{self.move!r} and then {self.before!r}"


@dataclass(frozen=True, slots=True)
class Change:
    """In ``function`` of a module's ``file`` the first ``line`` like the given one ``becomes`` another, with its indent."""

    module: str
    file: str
    function: str
    line: str
    becomes: str

    @property
    def expected(self) -> str:
        """What the function must hold."""
        return repr(self.line)


Mend = Move | Change


def mends_of(folder: Path) -> tuple[Mend, ...]:
    """The mends beside a part's module files; none where there is no such file."""
    path = folder / "mends.yaml"
    rows = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else ()
    return tuple(Move(**row) if "move" in row else Change(**row) for row in rows)


def mended(source: str, mend: Mend) -> str:
    """The file with its mend. Raises MendFailed."""
    lines = source.splitlines(keepends=True)
    start = _next(lines, lambda line: bool(re.match(rf"func .*\b{re.escape(mend.function)}\(", line)), 0, mend)
    if isinstance(mend, Change):
        found = _next(lines, lambda line: line.strip() == mend.line, start, mend)
        _inside(lines, start, found, mend)
        return "".join([*lines[:found], lines[found].replace(mend.line, mend.becomes), *lines[found + 1 :]])
    first = _next(lines, lambda line: line.strip().startswith(mend.move), start, mend)
    last = next(n for n in range(first, len(lines)) if lines[n].strip() == "}") + 1
    target = _next(lines, lambda line: line.strip() == mend.before, last, mend)
    _inside(lines, start, target, mend)
    return "".join([*lines[:first], *lines[last:target], *lines[first:last], *lines[target:]])


def _inside(lines: list[str], start: int, end: int, mend: Mend) -> None:
    if any(re.match(r"\}", line) for line in lines[start:end]):
        raise MendFailed(f"{mend.file}: expected {mend.expected} in {mend.function}, found it behind the function")


def _next(lines: list[str], fits: Callable[[str], bool], start: int, mend: Mend) -> int:
    found = next((n for n in range(start, len(lines)) if fits(lines[n])), None)
    if found is None:
        raise MendFailed(f"{mend.file}: expected {mend.function} with {mend.expected}, found another source")
    return found


def mend_sources(
    mends: tuple[Mend, ...], go: str, module: Path, work: Path, environment: Mapping[str, str], log: Path
) -> None:
    """Let the main module in ``module`` be built with mended copies of what it requires, which lie in ``work``.

    Raises MendFailed, subprocess.CalledProcessError.
    """

    def asked(*command: str) -> str:
        with log.open("ab") as out:
            out.write(f"$ {' '.join((go, *command))}\n".encode())
        done = subprocess.run(
            [go, *command], cwd=module, env=dict(environment), text=True, capture_output=True, check=True
        )
        return done.stdout.strip()

    for name in dict.fromkeys(mend.module for mend in mends):
        asked("mod", "download", name)
        copy = work / "mended" / name
        shutil.copytree(asked("list", "-m", "-f", "{{.Dir}}", name), copy)
        for path in (copy, *copy.rglob("*")):
            # The module cache is read-only.
            path.chmod(path.stat().st_mode | 0o200)
        for mend in mends:
            if mend.module == name:
                path = copy / mend.file
                path.write_text(mended(path.read_text(encoding="utf-8"), mend), encoding="utf-8")
        asked("mod", "edit", f"-replace={name}={copy}")
