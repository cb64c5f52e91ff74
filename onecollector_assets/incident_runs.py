"""``investigate_incident``: one run for each incident, which keeps its evidence and shows it."""

from contextlib import ExitStack
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from onecollector_assets.investigation import Lines, investigate
from onecollector_assets.presentation import cell
from onecollector_resources.dagster_resources import OneCollectorResource
from onecollector_resources.findings.report import evidence_rows
from onecollector_resources.loki.faults import LokiError
from onecollector_resources.runtime import RuntimeMissing

RETRIES = 2
OP = "collect_evidence"


class InvestigationConfig(dg.Config):
    """Which incident."""

    incident: str


@dg.op(
    name=OP,
    retry_policy=dg.RetryPolicy(max_retries=RETRIES, delay=30, backoff=dg.Backoff.EXPONENTIAL),
    description="Lines around the incident, what else happened then, and what could not be had.",
)
def collect_evidence(
    context: dg.OpExecutionContext, config: InvestigationConfig, onecollector: OneCollectorResource
) -> None:
    store = onecollector.findings()
    incident = store.incident(config.incident)
    if incident is None:
        raise dg.Failure(
            f"expected an incident of key {config.incident}, found none: it is older than what is kept",
            allow_retries=False,
        )
    with ExitStack() as opened:

        def loki(tenant: str) -> Lines:
            try:
                return opened.enter_context(onecollector.loki(tenant))
            except RuntimeMissing as error:
                raise LokiError(str(error)) from error

        evidence = investigate(incident, store, onecollector.registry(), loki, datetime.now(UTC))
    context.add_output_metadata(evidence_metadata(incident.findings, evidence))
    for missing in evidence["missing"]:
        context.log.warning("%s", missing)
    if evidence["missing"] and context.retry_number < RETRIES:
        # What was found is kept; the last attempt keeps what it could not get, too, and is no failure.
        raise dg.Failure(f"not all could be read: {evidence['missing'][0]}")


def evidence_metadata(findings: tuple[int, ...], evidence: dict[str, Any]) -> dict[str, Any]:
    """What people see at the run. Texts of logs stand as code, in which nothing is markup."""
    return {
        "evidence": dg.MetadataValue.md(evidence_table(evidence)),
        "missing": len(evidence["missing"]),
        "look": "; ".join(f"onecollector findings show {number}" for number in findings[:5]),
    }


def evidence_table(evidence: dict[str, Any]) -> str:
    """Rows of what was found; a cell holds one code span and no character that ends it or the cell."""
    lines = [
        f"| {label} | `{cell(text).replace(chr(92) + '|', '¦') or ' '}` |" for label, text in evidence_rows(evidence)
    ]
    return "\n".join(["| | what |", "|---|---|", *lines]) if lines else "nothing else is known of that time"


@dg.job(
    name="investigate_incident",
    executor_def=dg.in_process_executor,
    tags={"onecollector/plane": "findings", "dagster/max_runtime": "600"},
    description="Collects the evidence of one incident; look: onecollector findings show",
)
def investigate_incident() -> None:
    collect_evidence()
