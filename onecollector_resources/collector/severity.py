"""Severity, set once and for all profiles: rules, exports and models rely on it, and it cannot be filled in later.

In this order: a key ``level``, ``lvl`` or ``severity`` of JSON or logfmt, else the first upper-case level word near the
line's start, else unspecified. Numbers are OpenTelemetry's.
"""

from __future__ import annotations

LEVELS = (
    ("TRACE", 1, "trace|finest|verbose"),
    ("DEBUG", 5, "debug|fine|dbg"),
    ("INFO", 9, "info|information|notice|inf"),
    ("WARN", 13, "warn|warning|wrn"),
    ("ERROR", 17, "error|err|severe"),
    ("FATAL", 21, "fatal|critical|crit|panic|alert|emergency|emerg"),
)
"""Name, OpenTelemetry severity number, the words that mean it."""

NEAR_START = 120
"""Characters in which an upper-case level word counts: later in a line it is text."""


def severity_statements() -> list[str]:
    """OTTL statements over ``log``; cheap tests first, the cache holds the word that was found."""
    key = r"(?:^|[\\s,{])\\\"?(?:level|lvl|severity)\\\"?\\s*[:=]\\s*\\\"?(?P<word>[A-Za-z]+)"
    word = r"(?:^|[^A-Za-z0-9_])(?P<word>TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|SEVERE|FATAL|CRITICAL|PANIC)(?:[^A-Za-z0-9_]|$)"
    statements = [
        'set(log.cache["head"], Substring(log.body, 0, 4096)) where IsString(log.body) and Len(log.body) > 4096',
        'set(log.cache["head"], log.body) where IsString(log.body) and Len(log.body) <= 4096',
        f'merge_maps(log.cache, ExtractPatterns(log.cache["head"], "{key}"), "upsert") '
        'where log.cache["head"] != nil and IsMatch(log.cache["head"], "(?:level|lvl|severity)")',
        f'set(log.cache["near"], Substring(log.cache["head"], 0, {NEAR_START})) '
        f'where log.cache["word"] == nil and log.cache["head"] != nil and Len(log.cache["head"]) > {NEAR_START}',
        f'set(log.cache["near"], log.cache["head"]) '
        f'where log.cache["word"] == nil and log.cache["head"] != nil and Len(log.cache["head"]) <= {NEAR_START}',
        f'merge_maps(log.cache, ExtractPatterns(log.cache["near"], "{word}"), "upsert") where log.cache["near"] != nil',
    ]
    for name, number, words in LEVELS:
        test = f'log.cache["word"] != nil and IsMatch(log.cache["word"], "^(?i:{words})$")'
        statements.append(f"set(log.severity_number, {number}) where {test}")
        statements.append(f'set(log.severity_text, "{name}") where {test}')
    return statements
