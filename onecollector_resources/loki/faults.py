"""How a Loki says no: one error for all its clients, with Loki's own words and a caret under the spot they name.

What matters to a caller is whether asking again can help: a refusal has a status, silence has none, and a connection
that ended before the whole answer was there (``cut``) often means that a smaller answer would have come.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import httpx

TOO_MANY = re.compile(r"max entries limit per query exceeded.*\(\d+ > (\d+)\)")
"""Loki's words for a page over the tenant's limit; they name the limit."""


LOGIN = (401, 403)
"""Statuses that are about who asks, not about what is asked."""

MEND_LOGIN = "see loki.username, password_env, bearer_env and certificate in the settings; then run: onecollector up"


class LokiError(RuntimeError):
    """Loki refused or did not answer.

    ``status`` is the HTTP status of a refusal. ``away``: no answer came. ``cut``: nor did it after the request was
    taken; a time-out, or a message over the size that Loki's parts send each other, of which Loki says nothing.
    """

    def __init__(self, message: str, status: int | None = None, *, away: bool = False, cut: bool = False) -> None:
        super().__init__(message)
        self.status, self.away, self.cut = status, away, cut

    @property
    def most_entries(self) -> int | None:
        """The tenant's limit of lines in one answer, where the error is that more were asked for."""
        match = TOO_MANY.search(str(self)) if self.status == 400 else None
        return int(match[1]) if match else None

    @property
    def passing(self) -> bool:
        """Whether the same request may succeed later: Loki is away, starting, or has too much to do."""
        return self.away or self.status == 429 or (self.status or 0) >= 500


def refusal(who: str, what: str, status: int, said: str) -> LokiError:
    """The error for a refusal, with what to do where it is the login that is refused."""
    hint = f"; it refuses the login: {MEND_LOGIN}" if status in LOGIN else ""
    return LokiError(f"{who} refused {what} ({status}): {said}{hint}", status)


class NoLogQuery(LokiError):
    """A query was to give lines, and gives numbers."""


def with_caret(query: str, message: str) -> str:
    """Loki's message with the query under it and a caret under the column that it names."""
    match = re.search(r"at line (\d+), col (\d+)", message)
    if match is None:
        return message
    lines = query.splitlines() or [""]
    row, column = int(match[1]), int(match[2])
    if not 1 <= row <= len(lines):
        return message
    return f"{message}\n    {lines[row - 1]}\n    {' ' * (max(1, column) - 1)}^"


@contextmanager
def reaching(url: str) -> Iterator[None]:
    """Turn what goes wrong on the way to a Loki into LokiError, which names the Loki."""
    try:
        yield
    except httpx.HTTPError as error:
        cut = isinstance(error, (httpx.ReadTimeout, httpx.ReadError, httpx.RemoteProtocolError))
        said = str(error) or "no more is known"
        raise LokiError(f"Loki at {url} does not answer: {type(error).__name__}: {said}", away=True, cut=cut) from error
