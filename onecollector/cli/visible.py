"""Text of others as a terminal may get it: what moves the cursor, changes colours or turns lines around is made visible.

Lines, names of services and answers of servers are data. Everything for people goes through here, in ``render.py``, in
``lines.py`` and with the messages of errors; JSON and raw lines keep every character.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType
from rich.segment import Segment

COLOUR_CODE = re.compile(r"(?:\x1b\[|\x9b)[0-9;:]*m")
JOINERS = "\u200c\u200d"
"""Within words of some languages and within emoji; they move nothing."""
MOVING = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Categories of Unicode: controls, formats (those that turn the direction around are some), halves of pairs, ends of lines."""


class _Shown(dict[int, int]):
    """What stands for a character, by its code; found out once for each."""

    def __missing__(self, code: int) -> int:
        char = chr(code)
        if code < 32 or code == 127:
            # The picture of a control character.
            self[code] = 0x2421 if code == 127 else 0x2400 + code
        elif unicodedata.category(char) in MOVING and char not in JOINERS:
            self[code] = ord("\N{REPLACEMENT CHARACTER}")
        else:
            self[code] = code
        return self[code]


_ONE_LINE = _Shown()
_LINES = _Shown({ord(char): ord(char) for char in "\t\n"})


def visible(text: str) -> str:
    """The text without colour codes, other control characters but tabs and ends of lines made visible."""
    return text if text.isprintable() else COLOUR_CODE.sub("", text).translate(_LINES)


def on_one_line(text: str) -> str:
    """As ``visible``, with tabs and ends of lines made visible too."""
    return text if text.isprintable() else COLOUR_CODE.sub("", text).translate(_ONE_LINE)


def escaped(document: str) -> str:
    """The same JSON, in which characters that are not to be shown are escaped."""
    if document.isprintable():
        return document
    return "".join(json.dumps(c)[1:-1] if c not in "\t\n" and _ONE_LINE[ord(c)] != ord(c) else c for c in document)


class Terminal(Console):
    """A console that shows nothing but what is visible, whatever is printed."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """As a console does. Codes of rich itself are controls or styles, and stand in no text."""
        for segment in super().render(renderable, options):
            yield segment if segment.control else Segment(visible(segment.text), segment.style)
