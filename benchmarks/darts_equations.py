"""`DARTSRegressor` beside autora-theorist-darts on the twelve core laws, in one run.

    python benchmarks/darts_equations.py
    python benchmarks/darts_equations.py --epochs 300 --laws 4

100 rows without noise, the same primitives, nodes and epochs; R2 on 200 new rows of the same
ranges, CPU seconds, and how many laws are exact there (1 - R2 < 1e-6). Without
autora-theorist-darts (no dependency of gradnas) the first column is left out.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import time
import warnings
from collections.abc import Callable

import numpy as np
import torch

import gradnas

Law = tuple[str, int, Callable[[np.ndarray, np.ndarray], np.ndarray]]
LAWS: list[Law] = [
    ("weber", 2, lambda a, b: 1.5 * np.log(a / b)),
    ("stevens", 1, lambda a, b: 2 * a**0.6),
    ("exp_learning", 1, lambda a, b: 1 - 0.8 * np.exp(-0.3 * a)),
    ("exp_learning2", 2, lambda a, b: 1 - (1 - a / 3.2) * np.exp(-0.3 * b)),
    ("product", 2, lambda a, b: a * b),
    ("decay", 1, lambda a, b: 2 + 6 * np.exp(-0.5 * a)),
    ("linear", 2, lambda a, b: 2 * a - 3 * b + 1),
    ("logistic", 1, lambda a, b: 1 / (1 + np.exp(-(2 * a - 1)))),
    ("sine", 1, lambda a, b: 1.5 * np.sin(2 * a + 0.5)),
    ("michaelis", 1, lambda a, b: 2 * a / (0.5 + a)),
    ("luce", 2, lambda a, b: a / (a + b)),
    ("tutorial", 2, lambda a, b: 2 * a + np.exp(5 * b / 3.2)),
]
PRIMITIVES = (
    "none",
    "add",
    "subtract",
    "linear",
    "mult",
    "linear_exp",
    "linear_logistic",
    "linear_ln",
    "linear_sin",
    "linear_reciprocal",
)
EXACT = 1e-6
TRAINED = {"restarts": 8, "output_weights": True, "output_bias": True}


def rows(law: Law, seed: int, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Features and targets of a law."""
    _, features, function = law
    x_N2 = np.random.default_rng(seed).uniform(0.2, 3.0, (count, 2))
    return x_N2[:, :features], function(x_N2[:, 0], x_N2[:, 1])


def r2(y_N: np.ndarray, predicted: np.ndarray) -> float:
    """R2; minus infinity where a prediction is no number."""
    predicted_N = np.asarray(predicted, dtype=np.float64).ravel()
    if not np.isfinite(predicted_N).all():
        return -np.inf
    return float(1 - ((y_N - predicted_N) ** 2).mean() / y_N.var())


def reference(epochs: int):
    """A maker of the reference's estimator; None where it is not installed."""
    try:
        from autora.theorist.darts import DARTSRegressor
    except ImportError:
        return None
    return lambda: DARTSRegressor(primitives=PRIMITIVES, max_epochs=epochs, num_graph_nodes=2)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--epochs", type=int, default=100)
    parser.add_argument("--laws", type=int, default=len(LAWS), help="the first so many")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    own = {"primitives": PRIMITIVES, "epochs": options.epochs, "nodes": 2, "random_state": 0}
    methods = {
        "reference": reference(options.epochs),
        "ours, 1 restart": lambda: gradnas.DARTSRegressor(**own),
        "ours, 8 restarts, output trained": lambda: gradnas.DARTSRegressor(**own, **TRAINED),
    }
    scores: dict[str, list[tuple[float, float]]] = {}
    for law in LAWS[: options.laws]:
        x_ND, y_N = rows(law, 3, 100)
        new_ND, new_N = rows(law, 4, 200)
        parts: list[str] = []
        for name, make in methods.items():
            if make is None:
                continue
            began = time.process_time()
            target = y_N.reshape(-1, 1) if name == "reference" else y_N
            try:
                with contextlib.redirect_stderr(io.StringIO()):
                    score = r2(new_N, make().fit(x_ND, target).predict(new_ND))
            except (ValueError, IndexError, RuntimeError) as error:  # of the reference: NaN alphas
                parts.append(type(error).__name__)
                score = -np.inf
            seconds = time.process_time() - began
            scores.setdefault(name, []).append((score, seconds))
            parts.append(f"{name} {score:.6f} ({seconds:.1f} s)")
        print(f"{law[0]:14s} {'; '.join(parts)}", flush=True)
    for name, pairs in scores.items():
        values = np.array(pairs)
        exact = int((values[:, 0] > 1 - EXACT).sum())
        middle = np.median(values, axis=0)
        print(
            f"{name}: median R2 {middle[0]:.4f}, exact {exact} of {len(pairs)}, "
            f"median {middle[1]:.1f} CPU s"
        )


if __name__ == "__main__":
    main()
