"""Takes back a model that was promoted of late and finds far too much, or cannot score: the one before serves again."""

from __future__ import annotations

from collections.abc import Collection
from datetime import datetime

from ml.budgets import Budget, mean_budget
from ml.model_channels import Channels
from ml.rolling_back import AUTOMATIC, FAILURES, TRIAL_MINUTES, too_noisy
from onecollector.scorer.explaining import minute_of
from onecollector.scorer.state import Told


def take_back(channels: Channels, told: Told, services: Collection[str], budget: Budget) -> str:
    """Why it was taken back; empty where it was not. Raises StoreError, ModelRefused, MovedMeanwhile."""
    wanted = mean_budget(budget, services)
    noisy = too_noisy(len(told.begun), len(services), wanted)
    if not noisy and told.failures < FAILURES:
        return ""
    why = (
        f"{len(told.begun)} incidents within an hour, {wanted:g} a service and day are wanted"
        if noisy
        else f"{told.failures} minutes in a row could not be scored"
    )
    found = channels.read("production")
    if found is None or found[1].model_id != told.model_id or not found[1].previous:
        return ""
    pointer = found[1]
    on_trial = told.scored - minute_of(datetime.fromisoformat(pointer.moved)) <= TRIAL_MINUTES
    if pointer.why.startswith(AUTOMATIC) or not on_trial:
        return ""
    channels.roll_back(AUTOMATIC + why)
    return why
