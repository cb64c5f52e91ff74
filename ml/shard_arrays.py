"""A fitted shard as plain arrays and JSON, and back: what the model store keeps, with nothing in it that could run.

Numbers go into an npz that is read with ``allow_pickle=False``, names into JSON. Reading checks the schema, every name,
type and shape before anything is computed with them: a file that somebody cut short or made by hand is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ml.calibration import SHARES, THRESHOLDS
from ml.detectors import ASKED, VOTES, Shard
from ml.features import Vocabulary
from ml.forest import Forest
from ml.hours import SPANS
from ml.model_manifest import SCHEMA
from ml.signals import CHANNELS, LAGS, TOOK_HORIZONS
from ml.wear import BINS, Usual
from ml.zones import UTC
from onecollector_resources.time_zones import check_zone

PARAMS: Mapping[str, tuple[str, ...]] = {
    "rates": ("48", "K"),
    "follows": ("K",),
    "soft": ("K",),
    "soft_share": ("K",),
    "level": ("L", "S", "4"),
    **dict.fromkeys(("total_phi", "total_a", "total_up", "total_down", "mix_mean", "mix_sd"), ("L", "S")),
    **dict.fromkeys(("phi", "a", "up", "down"), ("L", "K")),
    "gap_rate": ("K",),
    "gap_offset": ("K",),
    "took_base": ("48", "D"),
    **dict.fromkeys(("took_v0", "took_v1", "took_up"), ("H", "D")),
    **dict.fromkeys(("hour_lines", "hour_calls"), ("48", "S")),
    **dict.fromkeys(("hour_phi", "hour_a", "hour_up", "hour_down"), ("P", "S")),
    "hour_silence": ("S",),
}
"""Parameters of a shard by their axes: columns K, services S, durations D, lags L, horizons of durations H, spans of hours P."""
_FOREST = {"left": np.int32, "right": np.int32, "feature": np.int32, "border": np.float32, "path": np.float32}


class BadShard(ValueError):
    """Arrays that are no shard of this schema; the message says what was expected and what was found."""


def to_arrays(shard: Shard) -> tuple[dict[str, NDArray], dict[str, Any]]:
    """Arrays by name, and what goes into JSON."""
    arrays: dict[str, NDArray] = {f"param_{name}": shard.params[name] for name in PARAMS}
    arrays |= {
        "columns": np.array(shard.columns, np.int32),
        "took_columns": np.array([2 * len(v.timed) + 1 for v in shard.vocabularies], np.int32),
        "tails": shard.tails,
        "episodes": shard.episodes,
        "days": shard.days,
        "learning": shard.learning,
        "usual_shares": shard.usual.shares,
        "usual_furthest": shard.usual.furthest,
    }
    if shard.forest is not None:
        arrays |= {f"forest_{name}": getattr(shard.forest, name) for name in _FOREST}
        arrays["forest_depth"] = np.array(shard.forest.depth, np.int32)
    names = {
        "schema": SCHEMA,
        "votes": list(VOTES),
        "services": list(shard.services),
        "zone": shard.zone,
        "vocabularies": [
            {
                "templates": list(v.templates),
                "errors": sorted(v.error_templates),
                "timed": list(v.timed),
                "rest": sorted(v.rest),
            }
            for v in shard.vocabularies
        ],
    }
    return arrays, names


def from_arrays(arrays: Mapping[str, NDArray], names: Mapping[str, Any]) -> Shard:
    """The shard; raises BadShard where anything is missing, of another schema, or of a shape that does not fit."""
    if names.get("schema") != SCHEMA or names.get("votes") != list(VOTES):
        raise BadShard(f"a model of schema {SCHEMA} is expected, found {names.get('schema')!r}: train it again")
    try:
        vocabularies = tuple(
            Vocabulary(tuple(v["templates"]), frozenset(v["errors"]), tuple(v["timed"]), frozenset(v["rest"]))
            for v in names["vocabularies"]
        )
        services = tuple(names["services"])
        zone = check_zone(names.get("zone", UTC))
    except (KeyError, TypeError) as error:
        raise BadShard(f"the model's names are incomplete: {error}") from None
    except ValueError as error:
        raise BadShard(f"the model's time zone: {error}") from None
    columns = tuple(len(v.templates) + 2 for v in vocabularies)
    took = [2 * len(v.timed) + 1 for v in vocabularies]
    sizes = {
        "K": sum(columns),
        "S": len(services),
        "D": sum(took),
        "L": len(LAGS),
        "H": len(TOOK_HORIZONS),
        "P": len(SPANS),
        "4": 4,
        "48": 48,
    }
    if len(vocabularies) != len(services):
        raise BadShard(f"{len(services)} services are expected, found {len(vocabularies)} vocabularies")
    params = {}
    for name, axes in PARAMS.items():
        kind = np.bool_ if name == "follows" else np.float32
        params[name] = _checked(arrays, f"param_{name}", kind, tuple(sizes[axis] for axis in axes))
    return Shard(
        services,
        vocabularies,
        params,
        columns,
        _checked(arrays, "tails", np.float32, (len(services), len(VOTES), len(SHARES))),
        _checked(arrays, "episodes", np.int32, (len(services), len(THRESHOLDS))),
        _checked(arrays, "days", np.float32, (len(services),)),
        _checked(arrays, "learning", np.bool_, (len(services),)),
        Usual(
            _checked(arrays, "usual_shares", np.float32, (len(services), len(CHANNELS), BINS)),
            _checked(arrays, "usual_furthest", np.float32, (len(services), len(CHANNELS))),
        ),
        _forest(arrays),
        zone,
    )


def _checked(arrays: Mapping[str, NDArray], name: str, kind: type, shape: tuple[int, ...] | None) -> NDArray:
    if name not in arrays:
        raise BadShard(f"array {name} is missing")
    array = arrays[name]
    if array.dtype != kind or (shape is not None and array.shape != shape):
        raise BadShard(f"array {name}: {np.dtype(kind)} {shape} is expected, found {array.dtype} {array.shape}")
    if array.dtype.kind == "f" and np.isnan(array).any():
        raise BadShard(f"array {name} holds values that are no numbers")
    return array


def _forest(arrays: Mapping[str, NDArray]) -> Forest | None:
    if "forest_left" not in arrays:
        return None
    shape = arrays["forest_left"].shape
    parts = {name: _checked(arrays, f"forest_{name}", kind, shape) for name, kind in _FOREST.items()}
    depth = int(_checked(arrays, "forest_depth", np.int32, ()))
    nodes = shape[1] if len(shape) == 2 else 0
    inside = all(bool((parts[side] < nodes).all() and (parts[side] >= -1).all()) for side in ("left", "right"))
    features = bool(((parts["feature"] >= 0) & (parts["feature"] < ASKED)).all())
    if not (nodes and inside and features and 0 <= depth <= nodes):
        raise BadShard("the forest's trees point outside of themselves")
    return Forest(**parts, depth=depth)
