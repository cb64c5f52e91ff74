"""Retention policies: one file per tenant, read into records, each fault with its line.

A file is good as a whole or not at all, and a bad one says nothing about any other tenant. Who reads Loki's limits may
hand in Loki's own judgement of a selector; without it the syntax is checked here alone.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from onecollector_resources.retention.durations import DurationError, seconds_of
from onecollector_resources.retention.keeps import AGES, FOREVER
from onecollector_resources.retention.selectors import SelectorError, parse_selector
from onecollector_resources.settings import Settings

LEAST_S = 86_400
"""Seconds: Loki refuses a shorter period in a rule. For ``keep`` the limit is ours: 31m is a slip, not a wish."""

MOST_S = 200 * 31_536_000
"""Seconds: Loki counts nanoseconds in 63 bits."""

KEYS, RULE_KEYS = ("keep", "rules"), ("selector", "keep", "why")

Judge = Callable[[str], str]
"""From a selector to Loki's complaint about it, or ""."""


class RetentionError(RuntimeError):
    """Policies cannot be read or brought into force; the message says what to do."""


@dataclass(frozen=True, slots=True)
class Rule:
    """Streams that ``selector`` matches are kept ``keep_s`` seconds; 0: for ever. The first that matches wins."""

    selector: str
    keep_s: int
    why: str = ""


@dataclass(frozen=True, slots=True)
class Policy:
    """One tenant's retention. ``keep_s`` None: as the settings say for all tenants; 0: for ever."""

    keep_s: int | None = None
    rules: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a file is not used. ``line`` counts from 1."""

    file: str
    line: int
    where: str
    message: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}: {f'{self.where}: ' if self.where else ''}{self.message}"


@dataclass(frozen=True, slots=True)
class PolicyFile:
    """One file as it was read: a policy, or faults."""

    tenant: str
    file: Path
    policy: Policy | None
    faults: tuple[Fault, ...] = ()


def policies_folder(settings: Settings, config: Path | None) -> Path | None:
    """The folder of ``<tenant>.yaml``: as set, else ``policies`` beside the settings file; None: there is none."""
    if settings.retention.policies_dir is not None:
        return settings.retention.policies_dir
    beside = config.resolve().parent / "policies" if config is not None else None
    return beside if beside is not None and beside.is_dir() else None


def read_policies(
    folder: Path | None, settings: Settings, judge: Callable[[str, str], str] | None = None
) -> dict[str, PolicyFile]:
    """Every tenant's file, by tenant. ``judge`` gets tenant and selector.

    Raises RetentionError for a folder that was named and is not there: that is not the same as no policies.
    """
    if folder is None:
        return {}
    try:
        files = sorted(path for path in folder.iterdir() if path.suffix in (".yaml", ".yml") and path.is_file())
    except OSError as error:
        raise RetentionError(
            f"{folder}: expected a folder of <tenant>.yaml, and it cannot be read: {error.strerror}; mend retention.policies_dir"
        ) from error
    out: dict[str, PolicyFile] = {}
    for path in files:
        tenant = path.stem
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            out[tenant] = PolicyFile(tenant, path, None, (Fault(str(path), 1, "", f"cannot be read: {error}"),))
            continue
        mine = read_policy(path, text, (lambda selector, t=tenant: judge(t, selector)) if judge else None)
        extra = tuple(_misplaced(mine, settings, out))
        out[tenant] = PolicyFile(tenant, path, None if extra else mine.policy, (*mine.faults, *extra))
    return out


def _misplaced(mine: PolicyFile, settings: Settings, others: Collection[str]) -> Iterator[Fault]:
    name = str(mine.file)
    if mine.tenant not in settings.tenants:
        known = ", ".join(sorted(settings.tenants))
        yield Fault(name, 1, "", f"unknown tenant {mine.tenant!r} (the file's name); known: {known}")
    if mine.tenant in others:
        yield Fault(name, 1, "", f"a second file of tenant {mine.tenant}; expected one, .yaml or .yml")
    by_hand = {"retention_period", "retention_stream"} & set(settings.loki.tenant_overrides.get(mine.tenant, {}))
    if by_hand:
        place = f"loki.tenant_overrides.{mine.tenant}.{sorted(by_hand)[0]}"
        yield Fault(name, 1, "", f"{place} says it, too; say it in one place")


def read_policy(path: Path, text: str, judge: Judge | None = None) -> PolicyFile:
    """One file. Never raises: what is wrong is a fault."""
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        said = getattr(error, "problem", None) or str(error)
        return PolicyFile(
            path.stem, path, None, (Fault(str(path), mark.line + 1 if mark else 1, "", f"not YAML: {said}"),)
        )
    faults: list[Fault] = []

    def fault(where: tuple[str | int, ...], message: str) -> None:
        faults.append(Fault(str(path), line_at(node, where), dotted(where), message))

    for where, key in _doubled(node, ()):
        fault((*where, key), f"{key!r} stands twice; only the last would count")
    policy = _policy(data, fault, judge)
    return PolicyFile(path.stem, path, None if faults else policy, tuple(sorted(faults, key=lambda one: one.line)))


Report = Callable[[tuple[str | int, ...], str], None]


def _policy(data: Any, fault: Report, judge: Judge | None) -> Policy:
    if not isinstance(data, Mapping):
        fault((), f"expected `keep:` and `rules:`, found {'nothing' if data is None else repr(data)[:60]}")
        return Policy()
    for key in data:
        if key not in KEYS:
            fault((key,), f"unknown key {key!r}; known: {', '.join(KEYS)}")
    keep = _keep(data["keep"], ("keep",), fault) if "keep" in data else None
    rows, rules = data.get("rules") or [], []
    if not isinstance(rows, list):
        fault(("rules",), f"expected a list of rules, found {type(rows).__name__}")
        rows = []
    if "keep" not in data and not rows:
        fault((), "expected `keep:` or `rules:`, found neither")
    for number, row in enumerate(rows):
        rules.append(_rule(row, ("rules", number), fault, judge))
    seen: dict[tuple[Any, ...], int] = {}
    for number, rule in enumerate(rules):
        matchers = _matchers(rule.selector)
        first = seen.setdefault(matchers, number) if matchers else number
        if first != number:
            fault(
                ("rules", number, "selector"),
                f"rules[{first}] has the same selector and wins: this one would never apply",
            )
    return Policy(keep, tuple(rules))


def _rule(row: Any, where: tuple[str | int, ...], fault: Report, judge: Judge | None) -> Rule:
    if not isinstance(row, Mapping):
        fault(where, f"expected selector and keep, found {row!r}"[:120])
        return Rule("", FOREVER)
    for key in row:
        if key not in RULE_KEYS:
            fault((*where, key), f"unknown key {key!r}; known: {', '.join(RULE_KEYS)}")
    for key in ("selector", "keep"):
        if key not in row:
            fault(where, f"expected {key!r}, found only {', '.join(map(str, row)) or 'nothing'}")
    selector, why = row.get("selector", ""), row.get("why") or ""
    if "selector" in row:
        try:
            parse_selector(selector)
            said = judge(selector) if judge else ""
        except SelectorError as error:
            said = str(error)
        if said:
            fault((*where, "selector"), said)
    if not isinstance(why, str):
        fault((*where, "why"), f"expected text, found {why!r}")
    keep = _keep(row["keep"], (*where, "keep"), fault) if "keep" in row else FOREVER
    return Rule(str(selector), keep, str(why))


def _keep(value: Any, where: tuple[str | int, ...], fault: Report) -> int:
    if value == "forever":
        return FOREVER
    try:
        seconds = seconds_of(value)
    except DurationError as error:
        fault(where, f"{error}; or forever")
        return FOREVER
    if seconds < LEAST_S:
        fault(where, f"expected at least 24h (or forever), found {value!r}: Loki removes by the day")
    elif seconds > MOST_S or seconds >= AGES:
        fault(where, f"expected less than 50y, found {value!r}; for longer write forever")
    return seconds


def _matchers(selector: str) -> tuple[Any, ...]:
    try:
        return tuple(sorted(map(str, parse_selector(selector))))
    except SelectorError:
        return ()


def dotted(where: tuple[str | int, ...]) -> str:
    """``rules[1].keep``."""
    out = ""
    for part in where:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return out


def line_at(node: yaml.Node | None, where: tuple[str | int, ...]) -> int:
    """Number of the line, from 1, of the deepest part of ``where`` that the text has."""
    line = node.start_mark.line + 1 if node is not None else 1
    for part in where:
        if isinstance(node, yaml.MappingNode):
            # The last of several equal keys: it is the one that a person added.
            pair = next(((k, v) for k, v in reversed(node.value) if k.value == str(part)), None)
            if pair is None:
                break
            line, node = pair[0].start_mark.line + 1, pair[1]
        elif isinstance(node, yaml.SequenceNode) and isinstance(part, int) and part < len(node.value):
            line, node = node.value[part].start_mark.line + 1, node.value[part]
        else:
            break
    return line


def _doubled(node: yaml.Node | None, where: tuple[str | int, ...]) -> Iterator[tuple[tuple[str | int, ...], str]]:
    if isinstance(node, yaml.MappingNode):
        names = [key.value for key, _ in node.value]
        yield from ((where, name) for name in sorted({name for name in names if names.count(name) > 1}))
        for key, value in node.value:
            yield from _doubled(value, (*where, key.value))
    elif isinstance(node, yaml.SequenceNode):
        for number, value in enumerate(node.value):
            yield from _doubled(value, (*where, number))
