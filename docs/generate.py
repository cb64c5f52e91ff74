"""Writes what documentation can be derived: ``docs/settings.md`` from the settings model, README's table from results.

``python docs/generate.py`` rewrites them, ``--check`` exits 1 where they are stale. ``make docs`` runs it.
"""

from __future__ import annotations

import json
import re
import sys
import types
import typing
from pathlib import Path
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from onecollector_resources.settings import Settings

ROOT = Path(__file__).resolve().parent.parent
BEGIN, END = "<!-- figures -->", "<!-- /figures -->"


def type_name(annotation: Any) -> str:
    """A type as a user would say it."""
    origin = typing.get_origin(annotation)
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in typing.get_args(annotation))
    if origin in (types.UnionType, typing.Union):
        return " or ".join(type_name(part) for part in typing.get_args(annotation) if part is not type(None))
    if origin in (dict,):
        return f"map of {type_name(typing.get_args(annotation)[1])}"
    if origin in (tuple, list):
        return f"list of {type_name(typing.get_args(annotation)[0])}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation.__name__
    return {"str": "text", "int": "number", "float": "number", "bool": "true or false"}.get(
        getattr(annotation, "__name__", str(annotation)), getattr(annotation, "__name__", "any")
    )


def default_text(field: Any) -> str:
    """A default that holds on every machine."""
    if field.default_factory is not None:
        return "see text"
    if field.default is PydanticUndefined:
        return "required"
    if field.default is None or isinstance(field.default, BaseModel):
        return ""
    return f"`{field.default}`" if field.default not in ((), {}, "") else ""


def rows_of(model: type[BaseModel], prefix: str) -> list[str]:
    """Table rows of a model, sections flattened to dotted keys."""
    rows = []
    for name, field in model.model_fields.items():
        annotation = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            rows += rows_of(annotation, f"{prefix}{name}.")
            continue
        text = field.description or ""
        rows.append(f"| `{prefix}{name}` | {type_name(annotation)} | {default_text(field)} | {text} |")
        for part in (annotation, *typing.get_args(annotation)):
            if isinstance(part, type) and issubclass(part, BaseModel):
                inner = "[]" if typing.get_origin(annotation) in (tuple, list) else ".NAME"
                inner = "" if typing.get_origin(annotation) in (types.UnionType, typing.Union) else inner
                rows += rows_of(part, f"{prefix}{name}{inner}.")
    return rows


def settings_page() -> str:
    """The settings reference."""
    return "\n".join(
        [
            "# Settings",
            "",
            "One file, `onecollector.yaml`: at `$ONECOLLECTOR_CONFIG`, else in the current folder, else in the XDG config folder.",
            "Variables win over it: `ONECOLLECTOR_LOKI__URL` is `loki.url`. This page is made from the settings model by `make docs`.",
            "",
            "| key | type | default | meaning |",
            "|---|---|---|---|",
            *rows_of(Settings, ""),
            "",
        ]
    )


def figures() -> str:
    """README's table, from ``bench/results/*.json`` but for rows that only a page about them tells."""
    lines = ["| what | measured | aim |", "|---|---|---|"]
    for path in sorted((ROOT / "bench" / "results").glob("*.json")):
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            if row.get("detail"):
                continue
            unit = f" {row['unit']}" if row.get("unit") else ""
            sign = {"lower": "<= ", "higher": ">= "}.get(row.get("better", ""), "")
            aim = "" if row.get("reach") is None else f"{sign}{row['reach']:,}{unit}"
            value = row["value"]
            lines.append(
                f"| {row['what']} | {value:,}{unit} | {aim} |"
                if isinstance(value, int | float)
                else f"| {row['what']} | {value}{unit} | {aim} |"
            )
    return "\n".join(lines)


def readme() -> str:
    """README with its table renewed."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    return re.sub(f"{BEGIN}.*?{END}", lambda _: f"{BEGIN}\n{figures()}\n{END}", text, flags=re.DOTALL)


def main() -> int:
    stale = []
    for path, text in ((ROOT / "docs" / "settings.md", settings_page()), (ROOT / "README.md", readme())):
        if not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(path.relative_to(ROOT))
            if "--check" not in sys.argv:
                path.write_text(text, encoding="utf-8")
    for path in stale:
        sys.stdout.write(f"{path}: {'stale, run: make docs' if '--check' in sys.argv else 'written'}\n")
    return 1 if stale and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
