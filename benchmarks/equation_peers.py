"""Other tools on the same laws, at the same CPU time: Operon, gplearn, PSRN, AutoRA's DARTS.

They are no dependencies of gradnas. Install them into an environment of their own and give its
Python:

    python -m venv peers
    peers/bin/pip install "torch==2.13.0" pyoperon==0.6.2 gplearn==0.4.3 \\
        psrn==0.1.3 autora-theorist-darts==1.1.0
    python benchmarks/equation_peers.py --python peers/bin/python --set hard --draws 5
    python benchmarks/equation_peers.py --python peers/bin/python --set feynman --every 2 \\
        --draws 1 --noise 0.0 --peers operon operon-bic

For every law, noise and data draw: ours at its defaults, measured in CPU seconds
(`time.process_time`); then each peer on the same rows, its budget (evaluations, generations,
epochs) set so that it takes as long, and at least `--least-seconds`, from its speed on these very
rows in a short run before; one thread each. The tools alternate, so that the load of the machine
falls on all alike. All are judged by `equation_judge.py`, those of a public set by
`equation_public.py`. Operon's settings are the best of three that were compared on development
laws (`operon`: fitness alone); `operon-bic` has two objectives, fit and length, and takes the law
of its front with the least BIC. gplearn has its own rates, the reference the settings of earlier
trials, PSRN those of its command line.
"""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

OPERON_SYMBOLS = "add,sub,mul,div,constant,variable,exp,log,sin,cos,tanh,sqrt,square,pow"
MEMORY_LIMIT_BYTES = 8 * 2**30
DARTS_PRIMITIVES = (
    "none",
    "add",
    "subtract",
    "mult",
    "linear",
    "linear_logistic",
    "linear_exp",
    "linear_sin",
    "linear_ln",
    "linear_reciprocal",
    "linear_tanh",
)


# ---- in the environment of the peers -------------------------------------------------------------


def operon(x_ND: np.ndarray, y_N: np.ndarray, seed: int, evaluations: int, **settings: Any) -> str:
    """Fit as the objective, local search by Levenberg-Marquardt, at most 30 nodes."""
    from pyoperon.sklearn import SymbolicRegressor

    model = SymbolicRegressor(
        **settings,
        allowed_symbols=OPERON_SYMBOLS,
        optimizer_iterations=5,
        max_length=30,
        max_evaluations=evaluations,
        generations=evaluations,
        n_threads=1,
        random_state=seed + 1,
    )
    model.fit(x_ND, y_N)
    return model.get_model_string(model.model_, precision=17).replace("^", "**").replace("X", "x")


def operon_bic(x_ND: np.ndarray, y_N: np.ndarray, seed: int, evaluations: int) -> str:
    """The same with two objectives, fit and length; of the front, the least BIC."""
    two = {
        "objectives": ["r2", "length"],
        "model_selection_criterion": "bayesian_information_criterion",
    }
    return operon(x_ND, y_N, seed, evaluations, **two)


def psrn(x_ND: np.ndarray, y_N: np.ndarray, seed: int, seconds: int) -> str:
    """Its command line's settings on the CPU, with constants; the budget is whole seconds."""
    import torch
    from psrn import PSRN_Regressor

    torch.set_num_threads(1)
    torch.manual_seed(seed)
    np.random.seed(seed)
    operators = ["Add", "Mul", "Sub", "Div", "Identity", "Sin", "Cos", "Exp", "Log"]
    model = PSRN_Regressor(
        variables=[f"x{i + 1}" for i in range(x_ND.shape[1])],
        use_const=True,
        n_symbol_layers=3,
        device=torch.device("cpu"),
        token_generator_config={"base": {"has_const": True, "tokens": operators}},
        stage_config={
            "default": {
                "operators": operators,
                "time_limit": seconds,
                "n_psrn_inputs": 4,
                "n_sample_variables": 3,
            },
            "stages": [{}],
        },
    )
    model.fit(
        x_ND,
        y_N[:, None],
        n_down_sample=100,
        use_threshold=False,
        threshold=1e-20,
        probe=None,
        prun_const=True,
        prun_ndigit=6,
        top_k=10,
    )
    return str(model.display_expr_table(sort_by="reward")[0][0])


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
    return re.sub(r"X(\d+)", lambda match: f"x{int(match[1]) + 1}", str(model._program))


def darts(x_ND: np.ndarray, y_N: np.ndarray, seed: int, epochs: int) -> str:
    """The reference with one node, trained output coefficients and as many epochs as fit in."""
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
    names = [f"x{i + 1}" for i in range(x_ND.shape[1])]
    return model.model_repr(input_labels=names, output_labels=["y"], decimals_to_display=12)


# The fit, its least budget, and the budget of a run that measures its speed.
PEERS = {
    "operon": (operon, 5_000, 5_000),
    "operon-bic": (operon_bic, 5_000, 5_000),
    "psrn": (psrn, 1, 1),
    "gplearn": (gplearn, 2, 2),
    "darts": (darts, 5, 5),
}
# What the peers raise on data that they cannot fit.
FAILURES = (
    ValueError,
    IndexError,
    RuntimeError,
    ArithmeticError,
    NotImplementedError,
    MemoryError,
)


def work() -> None:
    """Answer one JSON request per line: fit a peer within about so many CPU seconds."""
    import warnings

    warnings.simplefilter("ignore")
    # Operon can take any amount.
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_LIMIT_BYTES, MEMORY_LIMIT_BYTES))
    answers = sys.stdout
    sys.stdout = sys.stderr  # the peers print
    for line in sys.stdin:
        job = json.loads(line)
        fit, least, probe = PEERS[job["peer"]]
        x_ND = np.array(job["x"])
        y_N = np.array(job["y"])
        try:
            answer = _timed(fit, x_ND, y_N, job["seed"], job["seconds"], least, probe)
        except FAILURES as error:
            answer = {
                "expression": None,
                "error": f"{type(error).__name__}: {error}"[:200],
                "seconds": 0.0,
                "budget": 0,
            }
        answers.write(json.dumps(answer) + "\n")
        answers.flush()


def _timed(
    fit: Any, x_ND: np.ndarray, y_N: np.ndarray, seed: int, seconds: float, least: int, probe: int
) -> dict[str, Any]:
    fit(x_ND, y_N, seed, probe)  # imports, caches
    began = time.process_time()
    fit(x_ND, y_N, seed, probe)
    once = time.process_time() - began
    began = time.process_time()
    fit(x_ND, y_N, seed, 3 * probe)
    # The difference of two runs is without the fixed costs of a fit.
    step = max((time.process_time() - began - once) / (2 * probe), 1e-9)
    budget = max(least, int(probe + (seconds - once) / step))
    began = time.process_time()
    expression = fit(x_ND, y_N, seed, budget)
    return {"expression": expression, "seconds": time.process_time() - began, "budget": budget}


# ---- in ours -------------------------------------------------------------------------------------


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

    def fit(
        self, peer: str, x_ND: np.ndarray, y_N: np.ndarray, seed: int, seconds: float
    ) -> dict[str, Any]:
        """The answer of a peer.

        `{"expression": text or None, "seconds": CPU seconds, "budget": evaluations, generations or
        epochs}`.
        """
        assert self.process.stdin is not None and self.process.stdout is not None
        job = {
            "peer": peer,
            "x": x_ND.tolist(),
            "y": y_N.tolist(),
            "seed": seed,
            "seconds": seconds,
        }
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

    own: dict[str, Any] = {
        "operon": {"square": lambda a: a**2},
        "operon-bic": {"square": lambda a: a**2},
        "psrn": {},
        "gplearn": {
            "add": lambda a, b: a + b,
            "sub": lambda a, b: a - b,
            "mul": lambda a, b: a * b,
            "div": lambda a, b: a / b,
            "sqrt": lambda a: sympy.sqrt(sympy.Abs(a)),
            "log": lambda a: sympy.log(sympy.Abs(a)),
        },
        "darts": {
            "ln": sympy.log,
            "logistic": lambda a: 1 / (1 + sympy.exp(-a)),
            "relu": lambda a: sympy.Max(a, 0),
        },
    }
    symbols: dict[str, Any] = {name: sympy.Symbol(name, real=True) for name in names}
    symbols |= own[peer]
    lines: list[list[str]] = []
    for line in text.splitlines():
        if " = " in line:
            lines.append(line.split(" = ", 1))
    if not lines:
        lines = [["y", text]]
    try:
        for name, right in lines:  # the reference prints k1 = ..., then y = ... k1 ...
            symbols[name.strip()] = sympy.sympify(right, locals=symbols)
    except (sympy.SympifyError, SyntaxError, TypeError, AttributeError, ValueError) as error:
        print(f"{peer}: cannot read {text!r}: {error}", file=sys.stderr)
        return None
    return symbols[lines[-1][0].strip()]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--python", help="Python of the environment with the peers")
    parser.add_argument("--peers", nargs="+", choices=list(PEERS), default=["operon", "operon-bic"])
    parser.add_argument(
        "--times", type=float, default=1.0, help="give the peers so many times our seconds"
    )
    parser.add_argument("--least-seconds", type=float, default=1.0)
    parser.add_argument("--set", choices=["core", "hard", "development", "feynman"], default="hard")
    parser.add_argument("--file", help="the file of a public set")
    parser.add_argument("--every", type=int, default=1, help="every so many-th law")
    parser.add_argument("--offset", type=int, default=0, help="from the so many-th law on")
    parser.add_argument("--laws", nargs="+", help="only these")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.02])
    parser.add_argument(
        "--minutes", type=float, default=1e9, help="begin no further cell after so long"
    )
    parser.add_argument("--out", help="write all cells here, as JSON lines, as they come")
    options = parser.parse_args()
    if options.worker:
        work()
        return
    if not options.python:
        parser.error(
            "--python is needed: the Python of the environment that the peers are installed in"
        )
    compare(options)


def compare(options: argparse.Namespace) -> None:
    """Ours and the peers, cell by cell."""
    import torch
    from equation_public import public_laws
    from equations import SETS, Cell, difference, file_of, run, table

    from gradnas import LawSettings

    torch.set_num_threads(1)
    laws = SETS[options.set] if options.set in SETS else public_laws(file_of(options))
    laws = [law for law in laws if not options.laws or law.name in options.laws]
    laws = laws[options.offset :: options.every]
    cells: list[Cell] = []
    peers = Peers(options.python)
    run(laws[0], 0.0, 0, "warm-up", LawSettings())
    end = time.monotonic() + 60.0 * options.minutes
    for draw in range(options.draws):
        for law in laws:
            for noise in options.noise:
                if time.monotonic() > end:
                    print(f"stopped by --minutes before draw {draw}, {law.name}", file=sys.stderr)
                    continue
                ours = run(law, noise, draw, "gradnas", LawSettings())
                cells.append(ours)
                _append(options.out, ours)
                seconds = options.times * max(ours.cpu_s, options.least_seconds)
                x_ND, y_N = law.sample(draw, noise)
                for peer in options.peers:
                    answer = peers.fit(peer, x_ND, y_N, draw, seconds)
                    cell = _judged(peer, answer, law, noise, draw, x_ND)
                    cells.append(cell)
                    _append(options.out, cell)
                    mark = "recovered" if cell.recovered else "-"
                    print(
                        f"{peer} {law.name} noise {noise} draw {draw}: {mark} {cell.cpu_s:.2f} s",
                        file=sys.stderr,
                    )
    peers.close()
    done = {cell.law for cell in cells}
    table(cells, [law for law in laws if law.name in done], options.draws)
    ours = [cell for cell in cells if cell.variant == "gradnas"]
    for peer in options.peers:
        theirs = [cell for cell in cells if cell.variant == peer]
        gap, low, high = difference(ours, theirs)
        times = [sum(cell.cpu_s for cell in some) for some in (ours, theirs)]
        sizes = [_median_nodes(some) for some in (ours, theirs)]
        print(
            f"\ngradnas - {peer} = {gap:+.3f} [{low:+.3f}, {high:+.3f}] of {len(ours)} cells "
            f"(bootstrap over laws); CPU s {times[0]:.0f}, {times[1]:.0f}; "
            f"median nodes {sizes[0]:.0f}, {sizes[1]:.0f}"
        )


def _judged(
    peer: str, answer: dict[str, Any], law: Any, noise: float, draw: int, x_ND: np.ndarray
) -> Any:
    """What a peer answered, as a cell of the table."""
    from equations import Cell, verdict_of

    expression = None
    if answer["expression"] is not None:
        expression = read(peer, answer["expression"], law.names)
    verdict = None if expression is None else verdict_of(expression, law, noise, draw, x_ND)
    return Cell(
        variant=peer,
        law=law.name,
        noise=noise,
        draw=draw,
        recovered=verdict is not None and verdict.recovered,
        strict=verdict is not None and verdict.strict,
        cpu_s=answer["seconds"],
        wall_s=answer["seconds"],
        complexity=0,
        nodes=verdict.nodes if verdict else 0,
        expression=str(answer["expression"]),
    )


def _median_nodes(cells: Sequence[Any]) -> float:
    """Of the cells that have an expression."""
    return float(np.median([cell.nodes for cell in cells if cell.nodes]))


def _append(path: str | None, cell: Any) -> None:
    if path:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(asdict(cell)) + "\n")


if __name__ == "__main__":
    main()
