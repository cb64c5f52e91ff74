"""Severity, set once and for all profiles: rules, exports and models rely on it, and it cannot be filled in later.

In this order: a key ``level``, ``lvl`` or ``severity`` of JSON or logfmt, else the first upper-case level word near the
line's start, else unspecified. Numbers are OpenTelemetry's.
"""

from __future__ import annotations

from typing import Any

LEVELS = (
    ("TRACE", 1, "trace|finest|verbose"),
    ("DEBUG", 5, "debug|fine|dbg"),
    ("INFO", 9, "info|information|notice|inf"),
    ("WARN", 13, "warn|warning|wrn"),
    ("ERROR", 17, "error|err|severe"),
    ("FATAL", 21, "fatal|critical|crit|panic|alert|emergency|emerg"),
)
"""Name, OpenTelemetry severity number, the words that mean it."""

HEAD = 4096
"""Bytes in which a key is looked for."""

NEAR_START = 120
"""Bytes in which an upper-case level word counts: later in a line it is text."""


KEYS = ("level", "lvl", "severity")

NAMES = ("TRACE", "DEBUG", "INFO", "NOTICE", "WARN", "ERROR", "SEVERE", "FATAL", "CRITICAL", "PANIC")
"""Level words that count without a key, upper-case only."""

KEYED = r"(?:^|[\\s,{])\\\"?(?:level|lvl|severity)\\\"?\\s*[:=]\\s*\\\"?(?P<word>[A-Za-z]+)"
NAMED = r"(?:^|[^A-Za-z0-9_])(?P<word>TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|SEVERE|FATAL|CRITICAL|PANIC)(?:[^A-Za-z0-9_]|$)"


def severity_groups() -> list[dict[str, Any]]:
    """Groups of OTTL statements. The word is found first, then given its number.

    A regular expression costs ten times as much as all searches for plain text before it, and most lines have no key,
    many no level at all: so each group begins with such a search.
    """
    head = 'log.cache["head"]'
    return [
        {
            "context": "log",
            "conditions": [_any_of("log.body", KEYS)],
            "statements": [
                f"set({head}, log.body) where Len(log.body) <= {HEAD}",
                f"set({head}, Substring(log.body, 0, {HEAD})) where Len(log.body) > {HEAD}",
                f'merge_maps(log.cache, ExtractPatterns({head}, "{KEYED}"), "upsert")',
                'set(log.severity_text, log.cache["word"]) where log.cache["word"] != nil',
            ],
        },
        {
            "context": "log",
            "conditions": [f'log.severity_text == "" and {_any_of("log.body", NAMES)}'],
            "statements": [
                f"set({head}, log.body) where Len(log.body) <= {NEAR_START}",
                f"set({head}, Substring(log.body, 0, {NEAR_START})) where Len(log.body) > {NEAR_START}",
                f'merge_maps(log.cache, ExtractPatterns({head}, "{NAMED}"), "upsert")',
                'set(log.severity_text, log.cache["word"]) where log.cache["word"] != nil',
            ],
        },
        {
            "context": "log",
            "conditions": ['log.severity_text != ""'],
            "statements": [
                "set(log.severity_text, ToUpperCase(log.severity_text))",
                *(
                    f"set(log.severity_number, {number}) where {_one_of('log.severity_text', words)}"
                    for _, number, words in LEVELS
                ),
                *(
                    f'set(log.severity_text, "{name}") where log.severity_number == {number}'
                    for name, number, _ in LEVELS
                ),
                'set(log.severity_text, "") where log.severity_number == 0',
            ],
        },
    ]


def _any_of(field: str, words: tuple[str, ...]) -> str:
    found = " or ".join(f'Index({field}, "{word}") >= 0' for word in words)
    return f"(IsString({field}) and ({found}))"


def _one_of(field: str, words: str) -> str:
    return "(" + " or ".join(f'{field} == "{word.upper()}"' for word in words.split("|")) + ")"
