"""Where a person looks at a service's lines: Grafana's Explore where one is set, else Loki's own answer to the query.

Loki has no pages of its own, and its API wants the tenant in a header that no link can carry: with several tenants only
the Grafana link opens as it is, so the command line's form stands beside it.
"""

from __future__ import annotations

import json
from urllib.parse import urlencode

from onecollector_resources.settings import LokiSettings


def lines_link(settings: LokiSettings, loki_url: str, service: str) -> str:
    """A URL that shows the last hour of a service. The service's name is a safe one."""
    query = f'{{service_name="{service}"}}'
    if settings.grafana_url is None:
        return f"{loki_url}/loki/api/v1/query_range?{urlencode({'query': query, 'since': '1h', 'limit': 100})}"
    pane = {
        "datasource": settings.grafana_datasource,
        "queries": [{"refId": "A", "expr": query, "queryType": "range"}],
        "range": {"from": "now-1h", "to": "now"},
    }
    # Pane URLs of schema version 1: Grafana 10 and newer.
    parts = {"schemaVersion": 1, "panes": json.dumps({"logs": pane}, separators=(",", ":")), "orgId": 1}
    return f"{settings.grafana_url.rstrip('/')}/explore?{urlencode(parts)}"
