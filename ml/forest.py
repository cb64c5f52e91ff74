"""scikit-learn's IsolationForest as one voter: fitted once per shard on standardised evidence, kept as plain arrays.

Alone it is a weak detector of faults in logs: it cannot see what was constant in training. Asked about minutes in which
several signals are a little unusual at once it adds what a rule of the rarest signal cannot see. Its trees are stored and
walked here, so no estimator is ever pickled.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ml.panel import Floats

TREES = 100
SAMPLE = 512
ROWS = 40_000
LEAST_ROWS = 2_000
ROWS_AT_ONCE = 256
"""Rows that walk all trees together: what they need stays near the processor."""
MOST_DIGITS = 5.0
"""Evidence of one signal counts for no more: it has its own vote."""
EULER = 0.5772156649


@dataclass(frozen=True, slots=True)
class Forest:
    """Trees of equal room [trees, nodes]: children (-1 at a leaf), feature, border, and a leaf's whole path length."""

    left: NDArray[np.int32]
    right: NDArray[np.int32]
    feature: NDArray[np.int32]
    border: Floats
    path: Floats
    depth: int

    def isolation(self, rows: Floats) -> Floats:
        """How easily each row [N, C] is told from the rest: 0.5 like all others, towards 1 alone (Liu et al. 2008)."""
        x = np.minimum(rows, MOST_DIGITS).astype(np.float32)
        walked, borders, features = self._flat()
        path, roots = self.path.ravel(), np.arange(len(self.left), dtype=np.int64)[:, None] * self.left.shape[1]
        out = np.empty(len(x), np.float32)
        for first in range(0, len(x), ROWS_AT_ONCE):
            part = np.ascontiguousarray(x[first : first + ROWS_AT_ONCE].T)
            number, values = np.arange(part.shape[1]), part.ravel()
            node = np.broadcast_to(roots, (len(roots), part.shape[1]))
            for _ in range(self.depth):
                over = values.take(features.take(node) * part.shape[1] + number) > borders.take(node)
                node = walked.take(2 * node + over)
            out[first : first + ROWS_AT_ONCE] = 2 ** (-path.take(node).mean(0) / average_path(SAMPLE))
        return out

    def _flat(self) -> tuple[NDArray[np.int64], Floats, NDArray[np.int64]]:
        """Children side by side, borders and features, of all trees in one row; a leaf is its own child."""
        own = np.arange(self.left.size).reshape(self.left.shape)
        roots = own[:, :1]
        sides = [np.where(side >= 0, side + roots, own) for side in (self.left, self.right)]
        return np.stack(sides, axis=2).ravel(), self.border.ravel(), self.feature.ravel().astype(np.int64)


def average_path(n: NDArray[np.floating] | float) -> NDArray[np.float64]:
    """Average path length of an unsuccessful search in a binary tree of ``n`` values."""
    n = np.asarray(n, np.float64)
    many = 2 * (np.log(np.maximum(n - 1, 1)) + EULER) - 2 * (n - 1) / np.maximum(n, 1)
    return np.where(n > 2, many, np.where(n == 2, 1.0, 0.0))


def fit_forest(evidence: Sequence[Floats], seed: int) -> Forest | None:
    """A forest over the evidence [T, C] of all services, each with the same share of the rows; None for too few rows."""
    from sklearn.ensemble import IsolationForest

    chance = np.random.default_rng(seed)
    share = max(1, ROWS // max(1, len(evidence)))
    parts = [part[chance.integers(0, len(part), min(share, len(part)))] for part in evidence if len(part)]
    rows = np.concatenate(parts).astype(np.float32) if parts else np.zeros((0, 1), np.float32)
    if len(rows) < LEAST_ROWS:
        return None
    # The stubs know the default, "auto", and take it for the type.
    model = IsolationForest(n_estimators=TREES, max_samples=SAMPLE, random_state=seed)  # pyright: ignore[reportArgumentType]
    model.fit(np.minimum(rows, MOST_DIGITS))
    return from_trees([estimator.tree_ for estimator in model.estimators_])


def from_trees(trees: Sequence[object]) -> Forest:
    """scikit-learn's trees as arrays of one shape."""
    nodes = max(tree.node_count for tree in trees)  # pyright: ignore[reportAttributeAccessIssue]
    left = np.full((len(trees), nodes), -1, np.int32)
    right, feature = left.copy(), np.zeros_like(left)
    border, path = np.zeros(left.shape, np.float32), np.zeros(left.shape, np.float32)
    deepest = 0
    for number, tree in enumerate(trees):
        n = tree.node_count  # pyright: ignore[reportAttributeAccessIssue]
        children = tree.children_left, tree.children_right  # pyright: ignore[reportAttributeAccessIssue]
        left[number, :n], right[number, :n] = children
        feature[number, :n] = np.maximum(tree.feature, 0)  # pyright: ignore[reportAttributeAccessIssue]
        # Compared in double precision there, in single here: the next smaller single keeps every row on its side.
        threshold = tree.threshold.astype(np.float32)  # pyright: ignore[reportAttributeAccessIssue]
        over = threshold.astype(np.float64) > tree.threshold  # pyright: ignore[reportAttributeAccessIssue]
        border[number, :n] = np.where(over, np.nextafter(threshold, np.float32(-np.inf)), threshold)
        depth = np.zeros(n)
        for parent in range(n):  # parents come before their children
            for side in children:
                if side[parent] >= 0:
                    depth[side[parent]] = depth[parent] + 1
        path[number, :n] = depth + average_path(tree.n_node_samples)  # pyright: ignore[reportAttributeAccessIssue]
        deepest = max(deepest, int(depth.max()))
    return Forest(left, right, feature, border, path, deepest)
