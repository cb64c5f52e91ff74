"""Links to a service's lines."""

from __future__ import annotations

import json
from urllib.parse import parse_qs, urlsplit

from onecollector_resources.loki.links import lines_link
from onecollector_resources.settings import LokiSettings


def test_with_a_grafana_it_is_explore_with_the_query() -> None:
    settings = LokiSettings(grafana_url="https://grafana.example/", grafana_datasource="logs")
    url = urlsplit(lines_link(settings, "http://127.0.0.1:3100", "web"))
    assert (url.netloc, url.path) == ("grafana.example", "/explore")
    pane = json.loads(parse_qs(url.query)["panes"][0])["logs"]
    assert pane["datasource"] == "logs"
    assert pane["queries"][0]["expr"] == '{service_name="web"}'


def test_without_one_it_is_lokis_answer() -> None:
    url = urlsplit(lines_link(LokiSettings(), "http://127.0.0.1:3100", "a.b-c_1"))
    assert url.path == "/loki/api/v1/query_range"
    assert parse_qs(url.query)["query"] == ['{service_name="a.b-c_1"}']
