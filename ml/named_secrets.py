r"""Secrets told by the name before them: what follows ``password=``, ``"password":`` or ``<password>`` is hidden as a whole.

A value may be a word, a string in quotes, or a list or an object with more of these. The text may be JSON inside of a string of
JSON, where each level of nesting doubles the backslashes before a quote and adds one: ``"``, ``\"``, ``\\\"``. Each character is
looked at a bounded number of times, and what is never closed is hidden to the end.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

HIDDEN = "[secret]"

NAMED = re.compile(
    r"""(?ix)
    (?P<element> <[\w:.-]{0,64}? )?
    (?: passw(?:or)?d | passphrase | pwd | secret | token | credentials? | authorization | (?P<cookie>cookie) | session[_-]?id
      | (?:access|account|api|auth|encryption|master|private|secret|shared|signing|ssh)[ _-]?key )
    (?: \\{0,8}["']? \]? \s{0,4}
        (?: (?<=["']) , \s{0,4} \\{0,8}["']? value \\{0,8}["']? \s{0,4} )?
        (?:=>|:=|={1,3}|(?P<colon>:)) \s{0,4}
      | (?(element) (?P<tag> (?:\s[^<>]{0,128})? > ) | (?!) ) )
    """
)
"""A name that says what follows, and everything between it and what follows; also as the name of a pair, before its value."""
SCHEME = re.compile(r"(?i)(?:apikey|basic|bearer|digest|negotiate|token)\s{1,8}(?=\S)")
"""A word of the header ``Authorization`` that is no secret and stands before one."""

QUOTE = re.compile(r"""(?:[BFRUbfru]{1,2})?(\\{0,8})(["'])""")
"""A string begins; ``b'…'`` is one of Python's."""
OPENING = re.compile(r"[A-Za-z_.:]{0,64}[(\[{]")
"""A list or an object begins; ``Some("…")`` is one too."""
ENDS = re.compile(r"""(\\+)?(["'])|\\+""")
"""What may end a string."""
NESTS = re.compile(r"""(\\+)?(["'])|\\+|(?P<open>[(\[{])|(?P<close>[)\]}])""")
"""What may end a list or an object, or hide its end."""
WORD = re.compile(r"""[^\s,;&"']+""")
GLUED = re.compile(r"""[^\s,;&"'\\)\]}>][^\s,;&"']*""")
"""More of the same word, after a quote or a bracket that closed."""
TEXT = re.compile(r"[^<]+")
"""What is between an element's tags."""
COOKIES = re.compile(r"""[^\s,;"']+(?:;\s?[^\s,;"'=]+=[^\s,;"']*)*""")
"""The value of the header, in which names of cookies are told by nobody."""


def without_named(text: str) -> str:
    """The text with ``[secret]`` for each value that its name tells."""
    out, at = [], 0
    for start, end in _values(text):
        out += [text[at:start], HIDDEN]
        at = end
    return "".join([*out, text[at:]])


def _values(text: str) -> Iterator[tuple[int, int]]:
    at = 0
    while (found := NAMED.search(text, at)) is not None:
        at = found.end()
        if found["tag"]:
            inside = TEXT.match(text, at)
            end = inside.end() if inside else at
        else:
            end = _end_of_value(text, at, COOKIES if found["cookie"] and found["colon"] else WORD)
        if end > at:
            yield at, end
            at = end


def _end_of_value(text: str, at: int, word: re.Pattern[str]) -> int:
    """Where the value that begins there ends; the same place where there is none."""
    if scheme := SCHEME.match(text, at):
        at = scheme.end()
    if quote := QUOTE.match(text, at):
        end = _end_of_string(text, quote.end(), len(quote[1]), quote[2])
    elif opening := OPENING.match(text, at):
        end = _end_of_nest(text, opening.end())
    else:
        return _before_quote(text, at, word.match(text, at))
    return _before_quote(text, end, GLUED.match(text, end))


def _before_quote(text: str, at: int, found: re.Match[str] | None) -> int:
    """Backslashes before a quote belong to the quote, which closes what the value stands in."""
    if found is None:
        return at
    quoted = text[found.end() : found.end() + 1] in ("'", '"')
    return at + len(found[0].rstrip("\\") if quoted else found[0])


def _end_of_string(text: str, at: int, level: int, quote: str) -> int:
    for found in ENDS.finditer(text, at):
        if found[2] == quote and _closes(len(found[1] or ""), level):
            return found.end()
    return len(text)


def _end_of_nest(text: str, at: int) -> int:
    depth, inside = 1, None
    for found in NESTS.finditer(text, at):
        if found[2]:
            level = len(found[1] or "")
            if inside is None:
                inside = (level, found[2])
            elif found[2] == inside[1] and _closes(level, inside[0]):
                inside = None
        elif inside is None:
            depth += bool(found["open"]) - bool(found["close"])
            if depth == 0:
                return found.end()
    return len(text)


def _closes(backslashes: int, opened: int) -> bool:
    """Whether a quote after so many backslashes ends the string whose quote had ``opened`` before it.

    Each level that is read turns ``2n + 1`` of them into ``n``; where they are even, a string further out ends here.
    """
    if opened & (opened + 1):
        # None of 0, 1, 3, 7: not JSON in JSON.
        return backslashes <= opened
    for _ in range(opened.bit_length()):
        if backslashes % 2 == 0:
            return True
        backslashes //= 2
    return backslashes % 2 == 0
