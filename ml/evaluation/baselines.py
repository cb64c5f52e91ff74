"""What a model has to beat: rules that anybody could set up in an afternoon, judged on the same days by the same judge.

Thresholds come from the training days alone, as the model's do, and hours are those of the same clocks. A minute that nobody
observed is neither learned from nor an alarm.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ml.calibration import THRESHOLDS, count_episodes
from ml.features import Frame
from ml.seasonal import bucket_of, rolling_sum
from ml.zones import UTC, on_the_wall

Alarms = NDArray[np.integer]
"""Rows of the test frame that alarm."""
FIT_SHARE = 10 / 14
"""Of the training days; on the rest thresholds are calibrated."""


def fixed_threshold(train: Frame, test: Frame, budget: float, zone: str = UTC) -> Alarms:
    """Total rate more than three standard deviations from the mean of its weekday class and hour."""
    return np.flatnonzero(np.abs(_rate_z(train, test, zone)) > 3)


def fixed_threshold_in_budget(train: Frame, test: Frame, budget: float, zone: str = UTC) -> Alarms:
    """The same, at the threshold that keeps the budget on the training days."""
    z = np.abs(_rate_z(train, train, zone))[train.observed]
    days = len(z) / 1440
    limits = np.quantile(z, 1 - 10.0 ** -THRESHOLDS[::5])
    limit = next((float(v) for v in limits if count_episodes(z, float(v)) <= budget * days), float(z.max()))
    return np.flatnonzero(np.abs(_rate_z(train, test, zone)) > limit)


def all_positive(train: Frame, test: Frame, budget: float, zone: str = UTC) -> Alarms:
    """Every minute that was observed."""
    return np.flatnonzero(test.observed)


def new_template(train: Frame, test: Frame, budget: float, zone: str = UTC) -> Alarms:
    """Any line of a template that the training days did not have."""
    return np.flatnonzero(test.unknown > 0)


def isolation_forest(train: Frame, test: Frame, budget: float, zone: str = UTC) -> Alarms:
    """scikit-learn's IsolationForest on a minute's features, at the score that the budget's share of minutes reach."""
    from sklearn.ensemble import IsolationForest

    features = _dense(train, zone)[train.observed]
    cut = max(1, int(len(features) * FIT_SHARE))
    model = IsolationForest(n_estimators=100, random_state=0).fit(features[:cut])
    calibration = -model.score_samples(features[cut:] if cut < len(features) else features)
    limit = np.quantile(calibration, 1 - budget / 1440)
    return np.flatnonzero(test.observed & (-model.score_samples(_dense(test, zone)) > limit))


BASELINES: dict[str, Callable[[Frame, Frame, float, str], Alarms]] = {
    "total rate, fixed z > 3": fixed_threshold,
    "total rate, threshold by budget": fixed_threshold_in_budget,
    "new template": new_template,
    "IsolationForest alone": isolation_forest,
    "all positive": all_positive,
}


def _rate_z(train: Frame, test: Frame, zone: str) -> NDArray[np.float64]:
    totals, bucket = _total(train)[train.observed], bucket_of(on_the_wall(train.minutes[train.observed], zone))
    number = np.maximum(np.bincount(bucket, minlength=48), 1)
    mean = np.bincount(bucket, totals, 48) / number
    sd = np.sqrt(np.maximum(np.bincount(bucket, totals**2, 48) / number - mean**2, 1e-6))
    here = bucket_of(on_the_wall(test.minutes, zone))
    return np.where(test.observed, (_total(test) - mean[here]) / sd[here], 0)


def _total(frame: Frame) -> NDArray[np.float64]:
    return frame.counts.sum(1, dtype=np.float64) + frame.unknown


def _dense(frame: Frame, zone: str) -> NDArray[np.float64]:
    """Logarithms of totals, errors, kinds at 1 and 5 minutes, their change, and the time of day."""
    total, errors = _total(frame)[:, None], frame.errors[:, None].astype(np.float64)
    minutes = on_the_wall(frame.minutes, zone)
    hour = 2 * np.pi * (minutes % 1440)[:, None] / 1440
    weekend = (bucket_of(minutes) >= 24)[:, None]
    parts = [
        np.log1p(x) for x in (total, errors, frame.distinct[:, None], rolling_sum(total, 5), rolling_sum(errors, 5))
    ]
    parts += [np.log1p(total) - np.log1p(rolling_sum(total, 30) / 30), np.sin(hour), np.cos(hour), weekend]
    share = frame.counts / np.maximum(frame.counts.sum(1, keepdims=True), 1)
    parts.append(-(share * np.log(np.maximum(share, 1e-9))).sum(1, keepdims=True))
    return np.concatenate(parts, axis=1)
