"""How this command was called, so that every hint works as pasted: ``.venv/bin/onecollector up`` in a fresh checkout.

Messages below the command line name commands by their plain name; here, at the edge, the name becomes the one that
works from where the user is.
"""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

COMMANDS = (
    "archive",
    "config",
    "demo",
    "doctor",
    "down",
    "env",
    "export",
    "findings",
    "gaps",
    "install",
    "labels",
    "logs",
    "loki",
    "models",
    "prove",
    "query",
    "restart",
    "retention",
    "restore",
    "sources",
    "status",
    "storage",
    "tail",
    "templates",
    "up",
)
HINT = re.compile(rf"(?<![\w./-])onecollector(?= (?:{'|'.join(COMMANDS)})\b)")


def command_name() -> str:
    """The command in a form that works as pasted from here."""
    called = Path(sys.argv[0])
    if called.name != "onecollector":
        return "onecollector"
    found = shutil.which("onecollector")
    if found and Path(found).resolve() == called.resolve():
        return "onecollector"
    try:
        beside = str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(called.absolute())
    return beside if "/" in beside else f"./{beside}"


def as_pasted(text: str) -> str:
    """The text with each command of ours in the form that works from here."""
    name = command_name()
    return HINT.sub(lambda _: name, text)
