"""Can the gradient of the alphas earn its place among the ways to find laws?

    python benchmarks/gradient_place.py --file feynman.yaml          the laws that are missed
    python benchmarks/gradient_place.py --file feynman.yaml --laws I.12.4 I.14.3

For each law (100 points without noise, one draw): `EquationRegressor` at its default effort, and
`DARTSRegressor` with graphs of 2, 4 and 6 nodes, trained outputs and many restarts, refined by
least squares, on all primitives of Feynman's laws. Whether a law is found is judged as in
`equations.py public`; beside it R2 on fresh points, and CPU seconds.
"""

from __future__ import annotations

import argparse
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from equation_judge import values
from equation_public import PublicLaw, judged, public_laws

import gradnas

MISSED = ("I.9.18", "I.29.16", "II.11.17", "III.8.54", "III.9.52")
WORDS = ("none", "linear", "mult", "power", "linear_exp", "linear_sin", "linear_reciprocal")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--file", type=Path, required=True, help="a set of laws")
    parser.add_argument("--laws", nargs="+", default=MISSED)
    parser.add_argument("--nodes", type=int, nargs="+", default=(2, 4, 6))
    parser.add_argument("--restarts", type=int, default=16)
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    by_name = {law.name: law for law in public_laws(options.file)}
    for name in options.laws:
        law = by_name[name]
        told("default engine", gradnas.EquationRegressor(random_state=0), law)
        for nodes in options.nodes:
            estimator = gradnas.DARTSRegressor(
                nodes=nodes,
                primitives=WORDS,
                kinds=("sum", "product"),
                restarts=options.restarts,
                epochs=options.epochs,
                output_weights=True,
                output_bias=True,
                random_state=0,
            )
            told(f"gradient, {nodes} nodes", estimator, law)


def told(title: str, estimator: Any, law: PublicLaw) -> None:
    """Print whether it finds the law, and how far it is from it on fresh points."""
    x_ND, y_N = law.sample(0, 0.0)
    began = time.process_time()
    estimator.fit(x_ND, y_N)
    seconds = time.process_time() - began
    expression = estimator.equation_
    fresh_ND = law.features(1000, 20_000)
    truth_N = law.values(fresh_ND)
    with np.errstate(all="ignore"):
        gap_N = values(expression, law.names, fresh_ND) - truth_N
    r2 = 1.0 - float((gap_N**2).mean() / truth_N.var())
    verdict = judged(expression, law, 0)
    state = "found" if verdict.recovered else "-----"
    shown = str(expression)[:60]
    print(f"{law.name:10} {title:20} {state}  R2 {r2:8.4f}  {seconds:6.1f} s  {shown}", flush=True)


if __name__ == "__main__":
    main()
