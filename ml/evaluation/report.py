"""The verdicts for people: a table in markdown, a plot as PNG, plain figures for metadata."""

from __future__ import annotations

import io
from collections.abc import Sequence

from ml.evaluation.faults import KINDS
from ml.evaluation.judge import Verdict


def table(verdicts: Sequence[Verdict]) -> str:
    """A markdown table, the model first; recall and false findings with 95 % intervals."""
    head = [
        "detector",
        "recall, six classes",
        "false a service-day",
        "median delay",
        *KINDS,
        "F1 by minute",
        "in alarm",
    ]
    lines = [_row(head), _row(["---"] * len(head))]
    for v in verdicts:
        kinds = [f"{v.by_kind[kind].value:.2f}" for kind in KINDS]
        delay = f"{v.median_delay:.0f} min" if v.median_delay == v.median_delay else "-"
        lines.append(
            _row([v.detector, str(v.recall), str(v.false_a_day), delay, *kinds, f"{v.f1:.2f}", f"{v.alarmed:.1%}"])
        )
    return "\n".join(lines)


def details(verdict: Verdict) -> str:
    """Of one detector: each class with its interval, and next to what false findings were."""
    lines = [_row(["class", "faults", "found"]), _row(["---"] * 3)]
    lines += [_row([kind, str(verdict.faults[kind]), str(verdict.by_kind[kind])]) for kind in KINDS]
    lines += ["", _row(["false findings next to", "a service-day"]), _row(["---"] * 2)]
    lines += [_row([cause, f"{rate:.2f}"]) for cause, rate in verdict.false_by_cause.items()]
    return "\n".join(lines)


def figures(verdict: Verdict) -> dict[str, float]:
    """Plain numbers, for an asset's metadata and for gates."""
    return {
        "service_days": round(verdict.service_days, 1),
        "recall": verdict.recall.value,
        "recall_low": verdict.recall.low,
        "recall_high": verdict.recall.high,
        "false_a_day": verdict.false_a_day.value,
        "false_a_day_low": verdict.false_a_day.low,
        "false_a_day_high": verdict.false_a_day.high,
        "median_delay_minutes": verdict.median_delay,
        "f1_by_minute": verdict.f1,
        "prevalence": verdict.prevalence,
        **{f"recall_{kind.replace(' ', '_')}": verdict.by_kind[kind].value for kind in KINDS},
    }


def plot(verdicts: Sequence[Verdict]) -> bytes:
    """A PNG: recall against false findings of every detector, and the first one's recall by class. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    left, right = figure.subplots(1, 2)
    for v in verdicts:
        left.errorbar(
            max(v.false_a_day.value, 0.01),
            v.recall.value,
            xerr=[
                [max(0, v.false_a_day.value - v.false_a_day.low)],
                [max(0, v.false_a_day.high - v.false_a_day.value)],
            ],
            yerr=[[max(0, v.recall.value - v.recall.low)], [max(0, v.recall.high - v.recall.value)]],
            fmt="o",
            label=v.detector,
        )
    left.set(xscale="log", xlabel="false findings per service-day", ylabel="recall, six classes", ylim=(0, 1))
    left.legend(fontsize=7)
    first = verdicts[0]
    values = [first.by_kind[kind] for kind in KINDS]
    right.barh(
        KINDS,
        [v.value for v in values],
        xerr=[[max(0, v.value - v.low) for v in values], [max(0, v.high - v.value) for v in values]],
    )
    right.set(xlim=(0, 1), xlabel=f"recall of {first.detector}, with 95 % intervals")
    right.invert_yaxis()
    out = io.BytesIO()
    FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
