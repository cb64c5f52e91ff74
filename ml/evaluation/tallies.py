"""The tally of the harness's own days: what mining and counting their lines would give, without writing them.

Median and 95th percentile of a minute's durations are drawn as what they are, order statistics of n log-normal values: the
k-th smallest of n uniform values follows Beta(k, n - k + 1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ml.evaluation.days import ServiceDays
from ml.evaluation.services import template_id

if TYPE_CHECKING:
    import polars as pl


def tally_of(days: ServiceDays, chance: np.random.Generator) -> pl.DataFrame:
    """A row per minute and template that wrote anything, as ``ml.features.tally`` makes it from lines."""
    import polars as pl

    minute, column = np.nonzero(days.counts)
    lines = days.counts[minute, column].astype(np.int64)
    specs = days.spec.templates
    is_error = np.array([spec.is_error for spec in specs])[column]
    timed = np.array([spec.log_ms is not None for spec in specs])[column]
    median, high = _order_statistics(lines[timed], chance)
    centre = np.array([spec.log_ms or 0.0 for spec in specs])[column[timed]] + days.log_ms[minute[timed], column[timed]]
    sigma = np.array([spec.sigma for spec in specs])[column[timed]]
    took_median, took_p95 = np.full(len(lines), np.nan), np.full(len(lines), np.nan)
    took_median[timed] = np.exp(centre + sigma * median)
    took_p95[timed] = np.exp(centre + sigma * high)
    names = pl.Series([template_id(number) for number in range(len(specs))])
    return pl.DataFrame(
        {
            "minute": minute.astype(np.int64) + days.start_minute,
            "template": names.gather(column),
            "lines": lines,
            "errors": lines * is_error,
            "bytes": lines * np.array([len(spec.text) + 4 for spec in specs])[column],
            "took_lines": lines * timed,
            "took_median": took_median,
            "took_p95": took_p95,
        }
    )


def _order_statistics(n: np.ndarray, chance: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal median and 95th percentile of samples of sizes ``n``, drawn together."""
    from scipy.special import ndtri

    middle, high = (n + 1) // 2, np.ceil(0.95 * n).astype(np.int64)
    u = chance.beta(middle, n - middle + 1)
    between = np.maximum(high - middle, 0)
    rest = np.where(between > 0, chance.beta(np.maximum(between, 1), n - np.maximum(high, middle) + 1), 0)
    return ndtri(u), ndtri(np.minimum(u + (1 - u) * rest, 1 - 1e-12))
