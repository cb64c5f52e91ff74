"""A Loki of a benchmark's own with our config, stopped at its end whatever happens."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from onecollector.local.ports import any_free_port
from onecollector.parts.locate import locate
from onecollector_resources.loki.config import render_loki_config, render_overrides
from onecollector_resources.loki.lifecycle import LokiLifecycle
from onecollector_resources.settings import Settings


@contextmanager
def private_loki(settings: dict[str, Any] | None = None) -> Iterator[LokiLifecycle]:
    """Running; its folder, with ``data/objects`` in it, goes at the end."""
    binary = locate("loki")
    if binary is None:
        raise SystemExit("Loki is missing; run: onecollector install loki")
    with tempfile.TemporaryDirectory() as name:
        folder, data = Path(name), Path(name) / "data"
        data.mkdir()
        http_port = any_free_port(set())
        grpc_port = any_free_port({http_port})
        made = Settings(state_dir=folder, **(settings or {}))
        config = render_loki_config(made, data_dir=data, http_port=http_port, grpc_port=grpc_port)
        (folder / "config.yaml").write_text(config)
        (data / "overrides.yaml").write_text(render_overrides(made))
        loki = LokiLifecycle(binary, folder / "config.yaml", data, http_port, folder / "loki.log")
        loki.start()
        try:
            yield loki
        finally:
            loki.kill()
