"""Other tools on the same laws, at the same CPU time as ours: Operon, gplearn and the reference (AutoRA's DARTS).

They are no dependencies of gradnas. Install them into an environment of their own and give its Python:

    python -m venv peers
    peers/bin/pip install "torch==2.13.0" pyoperon==0.6.2 gplearn==0.4.3 autora-theorist-darts==1.1.0
    python benchmarks/equation_peers.py --python peers/bin/python --set hard --draws 5

For every law, noise and data draw: ours at its defaults, measured in CPU seconds (`time.process_time`); then each peer on
the same rows, its budget (evaluations, generations, epochs) set so that it takes as long, from its speed on these very
rows in a short run before; one thread each. Laws alternate, so that the load of the machine falls on all alike. All are
judged by `equation_judge.py`. The settings of the peers were chosen on the development laws (`--set development`).
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from typing import Any

import numpy as np

OPERON_SYMBOLS = "add,sub,mul,div,constant,variable,exp,log,sin,cos,tanh,sqrt,square,pow"
DARTS_PRIMITIVES = ("none", "add", "subtract", "mult", "linear", "linear_logistic", "linear_exp", "linear_sin",
                    "linear_ln", "linear_reciprocal", "linear_tanh")  # fmt: skip


# ---- in the environment of the peers --------------------------------------------------------------------------------


def operon(x_ND: np.ndarray, y_N: np.ndarray, seed: int, evaluations: int) -> str:
    """Two objectives (fit and length), local search by Levenberg-Marquardt, choice by description length."""
    from pyoperon.sklearn import SymbolicRegressor

    model = SymbolicRegressor(
        allowed_symbols=OPERON_SYMBOLS,
        objectives=["r2", "length"],
        optimizer_iterations=5,
        max_length=30,
        max_evaluations=evaluations,
        generations=100_000,
        n_threads=1,
        random_state=seed + 1,
    )
    model.fit(x_ND, y_N)
    return model.get_model_string(model.model_, precision=17).replace("^", "**").replace("X", "x")


def gplearn(x_ND: np.ndarray, y_N: np.ndarray, seed: int, generations: int) -> str:
    """Genetic programming with its own default rates, `exp` added."""
    from gplearn.functions import make_function
    from gplearn.genetic import SymbolicRegressor

    def bounded_exp(x: np.ndarray) -> np.ndarray:
        return np.exp(np.clip(x, -50, 50))

    exp = make_function(function=bounded_exp, name="exp", arity=1)
    model = SymbolicRegressor(
        population_size=1000,
        generations=generations,
        function_set=("add", "sub", "mul", "div", "sqrt", "log", "sin", "cos", exp),
        parsimony_coefficient=0.001,
        const_range=(-5.0, 5.0),
        random_state=seed,
        n_jobs=1,
    )
    model.fit(x_ND, y_N)
    return str(model._program).replace("X", "x")


def darts(x_ND: np.ndarray, y_N: np.ndarray, seed: int, epochs: int) -> str:
    """The reference with one node, trained output coefficients and as many epochs as there is time for."""
    import torch
    from autora.theorist.darts import DARTSRegressor

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)
    model = DARTSRegressor(
        num_graph_nodes=1,
        max_epochs=epochs,
        param_updates_for_sampled_model=10 * epochs,
        batch_size=len(x_ND),
        train_classifier_coefficients=True,
        train_classifier_bias=True,
        primitives=DARTS_PRIMITIVES,
        arch_learning_rate_max=0.01,
    )
    model.fit(x_ND, y_N[:, None])
    lines = model.model_repr(input_labels=[f"x{i + 1}" for i in range(x_ND.shape[1])], output_labels=["y"],
                             decimals_to_display=12)  # fmt: skip
    return lines


PEERS = {"operon": (operon, 20_000, 20_000), "gplearn": (gplearn, 2, 2), "darts": (darts, 5, 5)}  # least, for the speed


def work() -> None:
    """Answer one JSON request per line: fit a peer within about so many CPU seconds."""
    import warnings

    warnings.simplefilter("ignore")
    answers = sys.stdout
    sys.stdout = sys.stderr  # the peers print
    for line in sys.stdin:
        job = json.loads(line)
        fit, least, probe = PEERS[job["peer"]]
        x_ND, y_N = np.array(job["x"]), np.array(job["y"])
        try:
            answer = _timed(fit, x_ND, y_N, job["seed"], job["seconds"], least, probe)
        except (ValueError, IndexError, RuntimeError, ArithmeticError, NotImplementedError) as error:
            answer = {"expression": None, "error": f"{type(error).__name__}: {error}"[:200], "seconds": 0.0, "budget": 0}
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _timed(fit: Any, x_ND: np.ndarray, y_N: np.ndarray, seed: int, seconds: float, least: int, probe: int) -> dict:
    fit(x_ND, y_N, seed, probe)  # imports, caches
    began = time.process_time()
    fit(x_ND, y_N, seed, probe)
    once = time.process_time() - began
    began = time.process_time()
    fit(x_ND, y_N, seed, 3 * probe)
    step = max((time.process_time() - began - once) / (2 * probe), 1e-9)  # without the fixed costs of a fit
    budget = max(least, int(probe + (seconds - once) / step))
    began = time.process_time()
    expression = fit(x_ND, y_N, seed, budget)
    return {"expression": expression, "seconds": time.process_time() - began, "budget": budget}


# ---- in ours --------------------------------------------------------------------------------------------------------


class Peers:
    """The other environment, as a process that answers."""

    def __init__(self, python: str) -> None:
        self.process = subprocess.Popen(
            [python, __file__, "--worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )

    def fit(self, peer: str, x_ND: np.ndarray, y_N: np.ndarray, seed: int, seconds: float) -> dict[str, Any]:
        """`{"expression": text or None, "seconds": CPU seconds, "budget": evaluations, generations or epochs}`."""
        assert self.process.stdin is not None and self.process.stdout is not None
        job = {"peer": peer, "x": x_ND.tolist(), "y": y_N.tolist(), "seed": seed, "seconds": seconds}
        self.process.stdin.write(json.dumps(job) + "\n")
        self.process.stdin.flush()
        answer = self.process.stdout.readline()
        if not answer:
            raise RuntimeError(f"the process of the peers ended with code {self.process.wait()}")
        return json.loads(answer)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def read(peer: str, text: str, names: list[str]) -> Any:
    """What a peer printed, as a sympy expression; None where it cannot be read."""
    import sympy

    symbols: dict[str, Any] = {name: sympy.Symbol(name, real=True) for name in names}
    if peer == "gplearn":
        symbols |= {
            "add": lambda a, b: a + b,
            "sub": lambda a, b: a - b,
            "mul": lambda a, b: a * b,
            "div": lambda a, b: a / b,
            "sqrt": lambda a: sympy.sqrt(sympy.Abs(a)),
            "log": lambda a: sympy.log(sympy.Abs(a)),
        }
    if peer == "operon":
        symbols |= {"square": lambda a: a**2}
    if peer == "darts":
        text, logistic = _darts_text(text)
        symbols |= {"logistic": lambda a: 1 / (1 + sympy.exp(-a)), "relu": lambda a: sympy.Max(a, 0)}
        del logistic
    try:
        return sympy.sympify(text, locals=symbols)
    except (sympy.SympifyError, SyntaxError, TypeError, AttributeError, ValueError):
        return None


def _darts_text(text: str) -> tuple[str, None]:
    """One expression from the reference's listing of nodes."""
    raise NotImplementedError(text)
