"""From the place that a finding names to the line of the config's text, because a person reads lines.

Our rules name a place as ``receivers.file_log/docker.storage``, the binary as ``receivers::file_log/docker::storage``;
names themselves hold dots. So the path is followed through the text's own keys, as deep as it leads.
"""

from __future__ import annotations

import re

import yaml

from onecollector_resources.records import Finding

SEPARATOR = re.compile(r"::|[.:]")


def line_of(text: str, where: str) -> int | None:
    """Number of the line, from 1, of the deepest key that ``where`` leads to; None where it leads nowhere."""
    try:
        node = yaml.compose(text, Loader=yaml.CSafeLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        return mark.line + 1 if mark is not None else None
    found, rest = None, where
    while isinstance(node, yaml.MappingNode) and rest:
        # The longest first: a name may begin with another one and a dot.
        pairs = sorted(node.value, key=lambda pair: -len(str(pair[0].value)))
        for key, value in pairs:
            name = str(key.value)
            behind = rest[len(name) :]
            if name and rest.startswith(name) and (not behind or SEPARATOR.match(behind)):
                found, node = key.start_mark.line + 1, value
                rest = SEPARATOR.sub("", behind, count=1) if behind else ""
                break
        else:
            break
    return found


def told(finding: Finding, text: str) -> str:
    """A finding in one line: ``line 42: receivers.x.storage: expected ..., found ...``."""
    line = line_of(text, finding.where)
    place = "" if finding.message.startswith(finding.where) else f"{finding.where}: "
    return f"{f'line {line}: ' if line else ''}{place}{finding.message}"
