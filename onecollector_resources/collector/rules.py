"""What a config must have beyond what the collector's own check sees: each rule stands for lines that were lost once.

Pure checks over the parsed config; component types are recognised under all their names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import yaml

from onecollector_resources.collector.names import PREFERRED
from onecollector_resources.records import Finding

MAX_TEXT = 1 << 20
"""Bytes: the largest config that OpAMP and a ConfigMap carry."""

LOOPBACK = re.compile(r"^(127\.0\.0\.1|localhost|\[::1\])(:|$)|^\$\{env:[A-Z0-9_]+\}")

SECRET_KEYS = re.compile(r"(?i)(authorization|password|token|secret|api_?key)")
FROM_ENV = re.compile(r"(\w+ )?\$\{env:\w+\}")
"""A variable, with at most its scheme before it."""

Config = Mapping[str, Any]
Rule = Callable[[Config], Iterator[Finding]]


def kind_of(component: str) -> str:
    """The canonical type of ``filelog/x``: ``file_log``."""
    kind = component.split("/", maxsplit=1)[0]
    return next((name for name, options in PREFERRED.items() if kind in options), kind)


def _of_kind(config: Config, section: str, kind: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for name, body in (config.get(section) or {}).items():
        if kind_of(name) == kind:
            yield name, body if isinstance(body, Mapping) else {}


def _error(rule: str, where: str, message: str, fix: str) -> Finding:
    return Finding("error", rule, where, message, fix)


def _pipelines(config: Config) -> Mapping[str, Any]:
    return (config.get("service") or {}).get("pipelines") or {}


def no_batch_processor(config: Config) -> Iterator[Finding]:
    """The batch processor holds lines in memory that a kill loses, and swallows errors."""
    for name, pipeline in _pipelines(config).items():
        for processor in pipeline.get("processors") or ():
            if kind_of(processor) == "batch":
                yield _error(
                    "no-batch-processor",
                    f"service.pipelines.{name}",
                    f"found {processor}; expected none",
                    "batch in the exporter's sending_queue.batch",
                )


def readers_remember(config: Config) -> Iterator[Finding]:
    """A reader without storage starts anew after each kill; one that gives up drops; one that starts at the end skips."""
    active = set((config.get("service") or {}).get("extensions") or ())
    for name, body in _of_kind(config, "receivers", "file_log"):
        where = f"receivers.{name}"
        if body.get("storage") not in active:
            yield _error(
                "reader-storage",
                f"{where}.storage",
                f"expected an extension of service.extensions, found {body.get('storage')!r}",
                "storage: file_storage/offsets",
            )
        retry = body.get("retry_on_failure") or {}
        if retry.get("enabled") is not True or str(retry.get("max_elapsed_time", "5m")) not in ("0", "0s"):
            yield _error(
                "reader-retry",
                f"{where}.retry_on_failure",
                f"expected enabled, without end, found {dict(retry)}",
                "retry_on_failure: {enabled: true, max_elapsed_time: 0s}",
            )
        if body.get("start_at") != "beginning":
            yield _error(
                "reader-start",
                f"{where}.start_at",
                f"expected beginning, found {body.get('start_at')!r}: first lines would be lost",
                "start_at: beginning",
            )
        if body.get("include_file_record_number") is not True:
            yield _error(
                "reader-numbers",
                f"{where}.include_file_record_number",
                "expected true: without record numbers nothing can be proved",
                "include_file_record_number: true",
            )
        poll = re.fullmatch(r"(\d+)ms|(\d+)s", str(body.get("poll_interval", "200ms")))
        ms = int(poll[1] or 0) + int(poll[2] or 0) * 1000 if poll else 0
        if not 100 <= ms <= 5000:
            yield _error(
                "reader-poll",
                f"{where}.poll_interval",
                f"expected 100ms to 5s, found {body.get('poll_interval')!r}",
                "poll_interval: 200ms",
            )
        if not body.get("include"):
            yield _error("reader-include", f"{where}.include", "expected globs, found none", "name the tree's globs")
        if not any(
            isinstance(o, Mapping) and "service.name" in str(o.get("to", "")) for o in body.get("operators") or ()
        ):
            yield _error(
                "reader-identity",
                f"{where}.operators",
                "no operator sets resource service.name: lines would be nobody's",
                "take it from the path",
            )


def readers_do_not_overlap(config: Config) -> Iterator[Finding]:
    """A glob in two readers ships every line twice."""
    owner: dict[str, str] = {}
    for name, body in _of_kind(config, "receivers", "file_log"):
        for glob in body.get("include") or ():
            if glob in owner:
                yield _error(
                    "reader-overlap",
                    f"receivers.{name}.include",
                    f"{glob} is read by {owner[glob]}, too",
                    "one reader per glob",
                )
            owner.setdefault(glob, name)


def exporters_keep(config: Config) -> Iterator[Finding]:
    """An exporter without a queue on disk, that gives up or drops when full, loses lines at the first outage."""
    active = set((config.get("service") or {}).get("extensions") or ())
    for name, body in _of_kind(config, "exporters", "otlp_http"):
        where, queue, retry = f"exporters.{name}", body.get("sending_queue") or {}, body.get("retry_on_failure") or {}
        if queue.get("storage") not in active:
            yield _error(
                "queue-storage",
                f"{where}.sending_queue.storage",
                f"expected an extension of service.extensions, found {queue.get('storage')!r}",
                "storage: file_storage/queue",
            )
        if queue.get("block_on_overflow") is not True:
            yield _error(
                "queue-overflow",
                f"{where}.sending_queue.block_on_overflow",
                "expected true: a full queue would drop",
                "block_on_overflow: true",
            )
        if queue.get("num_consumers") != 1:
            yield _error(
                "queue-order",
                f"{where}.sending_queue.num_consumers",
                f"expected 1, found {queue.get('num_consumers', 10)!r}: a Loki that is killed forgets one of two batches "
                "of a stream that it took at once",
                "num_consumers: 1",
            )
        if retry.get("enabled") is not True or str(retry.get("max_elapsed_time", "5m")) not in ("0", "0s"):
            yield _error(
                "exporter-retry",
                f"{where}.retry_on_failure",
                f"expected enabled, without end, found {dict(retry)}",
                "retry_on_failure: {enabled: true, max_elapsed_time: 0s}",
            )
        endpoint = str(body.get("endpoint", ""))
        if not endpoint.endswith("/otlp"):
            yield _error(
                "exporter-endpoint",
                f"{where}.endpoint",
                f"expected an address that ends in /otlp, found {endpoint!r}",
                "${env:OC_LOKI_URL}/otlp",
            )
        if not (body.get("headers") or {}).get("X-Scope-OrgID"):
            yield _error(
                "exporter-tenant",
                f"{where}.headers",
                "expected X-Scope-OrgID: Loki refuses lines of nobody",
                "headers: {X-Scope-OrgID: TENANT}",
            )
        if (
            not isinstance(queue.get("batch"), Mapping)
            or int(queue["batch"].get("max_size") or 0) > 3_000_000
            or not queue["batch"].get("max_size")
        ):
            yield _error(
                "exporter-batch",
                f"{where}.sending_queue.batch",
                "expected batches of at most 3 MB: Loki's message limit is 4 MiB",
                "batch: {max_size: 1500000}",
            )


def limiter_comes_first(config: Config) -> Iterator[Finding]:
    """Without it, or late in the chain, an outage ends in the kernel's out-of-memory killer."""
    for name, pipeline in _pipelines(config).items():
        chain = pipeline.get("processors") or []
        if not chain or kind_of(chain[0]) != "memory_limiter":
            yield _error(
                "limiter-first",
                f"service.pipelines.{name}.processors",
                f"expected memory_limiter first, found {chain[:1]}",
                "put memory_limiter first",
            )


def lines_have_time(config: Config) -> Iterator[Finding]:
    """A line without time is refused; one with an observed time is another line when it is read again."""
    for name, pipeline in _pipelines(config).items():
        texts = [
            statement
            for processor in pipeline.get("processors") or ()
            if kind_of(processor) == "transform"
            for statement in ((config.get("processors") or {}).get(processor) or {}).get("log_statements") or ()
        ]
        if not any("set(log.time, log.observed_time)" in str(t) for t in texts) or not any(
            "set(log.observed_time_unix_nano, 0)" in str(t) for t in texts
        ):
            yield _error(
                "line-time",
                f"service.pipelines.{name}",
                "no statement gives lines a time and removes the observed one",
                "see the golden config",
            )


def pipelines_do_not_share(config: Config) -> Iterator[Finding]:
    """Behind a shared reader or queue, a tenant that Loki refuses stops the others."""
    owner: dict[str, str] = {}
    for name, pipeline in _pipelines(config).items():
        if not pipeline.get("receivers") or not pipeline.get("exporters"):
            yield _error("pipeline-ends", f"service.pipelines.{name}", "expected receivers and exporters", "name both")
        for component in [*(pipeline.get("receivers") or ()), *(pipeline.get("exporters") or ())]:
            if component in owner:
                yield _error(
                    "pipeline-shared",
                    f"service.pipelines.{name}",
                    f"{component} is used by {owner[component]}, too",
                    "one per tenant",
                )
            owner.setdefault(component, name)


def all_is_used(config: Config) -> Iterator[Finding]:
    """A component that no pipeline names collects nothing; one that is named must be there."""
    pipelines = _pipelines(config)
    for section in ("receivers", "processors", "exporters"):
        there = set(config.get(section) or {})
        used = {component for pipeline in pipelines.values() for component in pipeline.get(section) or ()}
        for name in sorted(there - used):
            yield _error("unused", f"{section}.{name}", "no pipeline uses it", "use or remove it")
        for name in sorted(used - there):
            yield _error("undefined", f"{section}.{name}", "a pipeline names it, and it is not there", "define it")


def listens_on_loopback(config: Config) -> Iterator[Finding]:
    """Health, metrics and debug pages are for this host."""
    for name, body in (config.get("extensions") or {}).items():
        endpoint = str((body or {}).get("endpoint", "")) if isinstance(body, Mapping) else ""
        if endpoint and not LOOPBACK.search(endpoint):
            yield _error(
                "loopback",
                f"extensions.{name}.endpoint",
                f"expected a loopback address, found {endpoint!r}",
                "127.0.0.1:PORT",
            )
    telemetry = ((config.get("service") or {}).get("telemetry") or {}).get("metrics") or {}
    if telemetry.get("address"):
        yield _error(
            "telemetry-address", "service.telemetry.metrics.address", "it is ignored by current releases", "use readers"
        )
    for reader in telemetry.get("readers") or ():
        host = str((((reader.get("pull") or {}).get("exporter") or {}).get("prometheus") or {}).get("host", ""))
        if host and not LOOPBACK.search(host):
            yield _error(
                "loopback",
                "service.telemetry.metrics.readers",
                f"expected a loopback address, found {host!r}",
                "127.0.0.1",
            )


def secrets_stay_out(config: Config) -> Iterator[Finding]:
    """Configs are stored, shown and diffed: secrets come from the environment."""
    for name, body in (config.get("exporters") or {}).items():
        for key, value in ((body or {}).get("headers") or {}).items():
            if SECRET_KEYS.search(str(key)) and not FROM_ENV.fullmatch(str(value)):
                yield _error("secret", f"exporters.{name}.headers.{key}", "a literal secret", "${env:NAME}")
        if ((body or {}).get("tls") or {}).get("key_pem"):
            yield _error("secret", f"exporters.{name}.tls.key_pem", "a literal secret", "key_file: ${env:NAME}")
        if re.match(r"\w+://[^/]*@", str((body or {}).get("endpoint", ""))):
            yield _error("secret", f"exporters.{name}.endpoint", "a login in an address", "headers.Authorization")


def exporters_know_whom_they_tell(config: Config) -> Iterator[Finding]:
    """Lines, and the login with them, go to whoever answers where certificates are not checked."""
    for name, body in (config.get("exporters") or {}).items():
        if ((body or {}).get("tls") or {}).get("insecure_skip_verify"):
            yield _error(
                "unchecked-tls",
                f"exporters.{name}.tls.insecure_skip_verify",
                "expected a certificate that is checked",
                "ca_file: the authority's certificate (loki.authority)",
            )


RULES: tuple[Rule, ...] = (
    no_batch_processor,
    readers_remember,
    readers_do_not_overlap,
    exporters_keep,
    limiter_comes_first,
    lines_have_time,
    pipelines_do_not_share,
    all_is_used,
    listens_on_loopback,
    secrets_stay_out,
    exporters_know_whom_they_tell,
)


def check_rules(text: str) -> tuple[Finding, ...]:
    """All rules over a config's text; what is not YAML of the right shape is one finding."""
    if len(text.encode()) > MAX_TEXT:
        return (
            _error(
                "size",
                "config",
                f"expected at most {MAX_TEXT:,} bytes, found {len(text.encode()):,}",
                "fewer tenants per class",
            ),
        )
    try:
        config = yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    except yaml.YAMLError as error:
        return (_error("yaml", "config", f"not YAML: {error}", "mend the line"),)
    sections = ("extensions", "receivers", "processors", "exporters", "service")
    if not isinstance(config, Mapping):
        return (_error("yaml", "config", f"expected sections, found {type(config).__name__}", "see the golden config"),)
    bad = [s for s in sections if not isinstance(config.get(s), Mapping) or not config[s]]
    if bad or not _pipelines(config):
        return tuple(
            _error("section", s, "missing or empty", "see the golden config") for s in bad or ["service.pipelines"]
        )
    try:
        return tuple(finding for rule in RULES for finding in rule(config))
    except (AttributeError, TypeError, KeyError, ValueError) as error:
        return (_error("shape", "config", f"a section has an unexpected shape: {error}", "see the golden config"),)
