"""``onecollector doctor --loki URL``: what a Loki, ours or not, would do to lines, as a table with the YAML that mends it."""

from __future__ import annotations

import secrets
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import typer
from rich.text import Text

from onecollector.cli.invocation import as_pasted
from onecollector.cli.render import console, print_json

if TYPE_CHECKING:
    from onecollector_resources.loki.access import LokiAccess
    from onecollector_resources.loki.preflight.trying import Preflight
    from onecollector_resources.records import Finding

STYLES = {"ok": "green", "warning": "yellow", "error": "bold red"}


def access_of(url: str, tenant: str, options: Mapping[str, Any]) -> LokiAccess:
    """How to reach it: by the options where one is given, else by what the settings say of Loki."""
    from pydantic import ValidationError

    from onecollector_resources.settings import LokiSettings, load_settings

    given = {name: value for name, value in options.items() if value is not None}
    try:
        settings = LokiSettings(**given) if given else load_settings().loki
    except ValidationError as error:
        raise typer.BadParameter("; ".join(one["msg"] for one in error.errors())) from error
    return settings.access(url.rstrip("/"), tenant)


def examine(access: LokiAccess, *, read_only: bool, json_: bool) -> int:
    """Look, and unless ``read_only`` try lines; prints, and answers the exit code. Raises LokiError."""
    from onecollector_resources.loki.preflight.looking import preflight
    from onecollector_resources.loki.preflight.trying import try_lines

    looked = list(preflight(access, [access.tenant]))
    away = any(finding.rule == "loki-away" for finding in looked)
    tried = None
    if not read_only and not away:
        tried = try_lines(access, secrets.token_hex(4), clock=time.time, sleep=time.sleep)
    findings = _each_once(looked, tried)
    errors = sum(1 for finding in findings if finding.level == "error")
    if json_:
        print_json(
            {
                "examined": ["loki"],
                "url": access.url,
                "tenant": access.tenant,
                "findings": findings,
                "errors": errors,
                "trials": list(tried.trials) if tried else [],
                "sources": list(tried.sources) if tried else [],
                "scratch": tried.removal if tried else None,
                "service": tried.service if tried else None,
            }
        )
        return 1 if errors else 0
    if tried:
        _say_trials(tried)
    _say_findings(access, findings, {trial.rule for trial in tried.trials} if tried else set())
    if tried:
        mark = Text("✓ ", style="green") if tried.removal.deleted else Text("! ", style="yellow")
        console().print(mark.append(tried.removal.said, style="default"))
    said = "" if errors or findings else ": this Loki keeps every line"
    console().print(
        Text(f"{len(findings)} finding{'s' * (len(findings) != 1)}, {errors} error{'s' * (errors != 1)}{said}")
    )
    return 1 if errors else 0


def _each_once(looked: Sequence[Finding], tried: Preflight | None) -> list[Finding]:
    """What was tried has the word over what the config alone says."""
    if tried is None:
        return list(looked)
    decided = {trial.rule for trial in tried.trials if trial.outcome != "not tried"} | {f.rule for f in tried.findings}
    # A trial's own refusals are in the counter by now; the look came before them.
    return sorted(
        [*(f for f in looked if f.rule not in decided), *tried.findings], key=lambda finding: finding.level != "error"
    )


def _say_trials(tried: Preflight) -> None:
    out = console()
    sources = ", ".join(tried.sources) or "nowhere: it tells nobody, so only the trials say"
    out.print(Text(f"Loki at {tried.url} as tenant {tried.tenant}; limits from {sources}"))
    out.print(Text(f"{'TRIAL':<22}{'RESULT':<10}FOUND", style="dim"))
    for trial in tried.trials:
        # No table: what was found must not be cut.
        line = Text(f"{trial.name:<22}").append(f"{trial.outcome:<10}", style=STYLES[trial.level])
        out.print(line.append(trial.found, style="default"), soft_wrap=True)


def _say_findings(access: LokiAccess, findings: Sequence[Finding], tried: set[str]) -> None:
    out = console()
    for finding in findings:
        mark = Text("✗ ", style="bold red") if finding.level == "error" else Text("! ", style="yellow")
        place = "" if finding.where == access.url else f"{finding.where}: "
        # The table above has the words already.
        text = finding.rule if finding.rule in tried else f"{finding.rule}: {place}{finding.message}"
        out.print(mark.append(as_pasted(text), style="default"))
        for line in finding.fix.splitlines():
            out.print(Text(as_pasted(f"    {line}")), soft_wrap=True)
