"""How often equation discovery finds the law, how long it takes, and what each part of it adds.

    # recovered laws, seconds, size of what was found
    python benchmarks/equations.py recovery --set core --draws 5
    # supernets against random graphs, at equal time
    python benchmarks/equations.py gradient --set hard --draws 3
    # one level or two; other relaxations, gradients
    python benchmarks/equations.py levels --set development
    # time of K supernets side by side
    python benchmarks/equations.py restarts
    # a public set of laws, read from a file, by the judge of accuracy (`equation_public.py`)
    python benchmarks/equations.py public --set feynman --draws 1
    python benchmarks/equations.py public --file ../shared/data/equations/feynman.yaml

Laws and judge: `equation_laws.py`, `equation_judge.py`; other tools: `equation_peers.py`. 100
points, noise 0 and 2% of the standard deviation of the target, one thread. Seconds are CPU seconds
of this process; a first fit warms up.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import sympy
import torch
from equation_judge import judge
from equation_laws import CORE, DEVELOPMENT, HARD, POINTS, EquationLaw
from equation_public import PublicLaw, judged, public_laws

from gradnas import FirstOrder, GumbelSoftmax, Unrolled
from gradnas.laws.discover import (
    LawSettings,
    discover_laws,
)
from gradnas.laws.engine.data import LawData
from gradnas.laws.engine.graph import EquationGraph
from gradnas.laws.engine.supernets import (
    SupernetSearch,
    search,
)
from gradnas.relaxations import Sigmoid

SETS = {"core": CORE, "hard": HARD, "development": DEVELOPMENT}


@dataclass(frozen=True)
class Cell:
    """One law, noise and draw of the data."""

    variant: str
    law: str
    noise: float
    draw: int
    recovered: bool
    strict: bool
    cpu_s: float
    wall_s: float
    complexity: int
    nodes: int
    expression: str


@dataclass(frozen=True)
class Judged:
    """What either judge says of a law."""

    recovered: bool
    strict: bool
    nodes: int


def verdict_of(
    expression: sympy.Expr,
    law: EquationLaw | PublicLaw,
    noise: float,
    draw: int,
    x_ND: np.ndarray,
) -> Judged:
    """By the judge of the law's set."""
    if isinstance(law, PublicLaw):
        by_accuracy = judged(expression, law, draw, noise)
        return Judged(by_accuracy.recovered, by_accuracy.strict, by_accuracy.nodes)
    verdict = judge(expression, law, noise, x_ND)
    return Judged(verdict.recovered(noise), verdict.strict, verdict.nodes)


def run(
    law: EquationLaw | PublicLaw, noise: float, draw: int, variant: str, settings: LawSettings
) -> Cell:
    """Find the law and judge it."""
    x_ND, y_N = law.sample(draw, noise)
    wall_began = time.perf_counter()
    cpu_began = time.process_time()
    laws = discover_laws(x_ND, y_N, settings, seed=draw)
    cpu_s = time.process_time() - cpu_began
    wall_s = time.perf_counter() - wall_began
    best = laws.front[laws.best]
    expression = best.expression(law.names)
    verdict = verdict_of(expression, law, noise, draw, x_ND)
    cell = Cell(
        variant=variant,
        law=law.name,
        noise=noise,
        draw=draw,
        recovered=verdict.recovered,
        strict=verdict.strict,
        cpu_s=cpu_s,
        wall_s=wall_s,
        complexity=best.complexity,
        nodes=verdict.nodes,
        expression=str(expression.evalf(6)),
    )
    mark = "form" if cell.recovered else "-"
    if cell.strict:
        mark = "strict"
    what = f"{variant} {law.name} noise {noise} draw {draw}"
    print(f"{what}: {mark} {cpu_s:.2f} s {cell.expression[:90]}", file=sys.stderr)
    return cell


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% interval of a rate."""
    if trials == 0:
        return 0.0, 1.0
    z = 1.96
    p = successes / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(one: Sequence[Cell], other: Sequence[Cell]) -> tuple[float, float, float]:
    """Difference of two recovery rates on the same cells, and its 95% interval.

    By a bootstrap over the laws: cells of one law are not independent.
    """
    gaps: dict[str, list[int]] = {}
    for a, b in zip(one, other, strict=True):
        assert (a.law, a.noise, a.draw) == (b.law, b.noise, b.draw)
        gaps.setdefault(a.law, []).append(int(a.recovered) - int(b.recovered))
    per_law = np.array([np.mean(some) for some in gaps.values()])
    generator = np.random.default_rng(0)
    resampled = generator.integers(len(per_law), size=(10_000, len(per_law)))
    means = per_law[resampled].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(per_law.mean()), float(low), float(high)


def table(cells: Sequence[Cell], laws: Sequence[EquationLaw], draws: int) -> None:
    """Per law and in total, as Markdown."""
    for variant in dict.fromkeys(cell.variant for cell in cells):
        for noise in dict.fromkeys(cell.noise for cell in cells):
            some = [cell for cell in cells if cell.variant == variant and cell.noise == noise]
            _summary(f"{variant}, noise {noise}", some, len(laws), draws)
            print(
                "| law | recovered | by the printed constants | median CPU s | median complexity |"
            )
            print("|---|---|---|---|---|")
            for law in laws:
                _row(law.name, [cell for cell in some if cell.law == law.name])


def _summary(title: str, cells: Sequence[Cell], num_laws: int, draws: int) -> None:
    recovered = sum(cell.recovered for cell in cells)
    strict = sum(cell.strict for cell in cells)
    low, high = interval(recovered, len(cells))
    rate = recovered / len(cells)
    seconds = [cell.cpu_s for cell in cells]
    median = statistics.median(seconds)
    mean = statistics.mean(seconds)
    print(
        f"\n{title}: recovered {recovered} of {len(cells)} = {rate:.3f} [{low:.3f}, {high:.3f}] "
        f"(by the printed constants {strict}), on average {recovered / draws:.2f} of {num_laws} "
        f"laws; CPU s median {median:.2f}, mean {mean:.2f}, max {max(seconds):.2f}"
    )


def _row(name: str, cells: Sequence[Cell]) -> None:
    recovered = sum(cell.recovered for cell in cells)
    strict = sum(cell.strict for cell in cells)
    seconds = statistics.median(cell.cpu_s for cell in cells)
    complexity = statistics.median(cell.complexity for cell in cells)
    print(f"| {name} | {recovered}/{len(cells)} | {strict} | {seconds:.2f} | {complexity} |")


def compare(
    options: argparse.Namespace, variants: dict[str, LawSettings], laws: Sequence[EquationLaw]
) -> list[Cell]:
    """All variants on all cells, alternating."""
    cells: list[Cell] = []
    for draw in range(options.first_draw, options.first_draw + options.draws):
        for law in laws:
            for noise in options.noise:
                for name, settings in variants.items():
                    cells.append(run(law, noise, draw, name, settings))
    if options.out:
        lines = [json.dumps(asdict(cell)) + "\n" for cell in cells]
        Path(options.out).write_text("".join(lines))
    return cells


def gradient(options: argparse.Namespace, laws: Sequence[EquationLaw]) -> None:
    """What the gradient adds.

    In the place of the supernets there are random graphs, as many as take the same time.
    """
    alone = {"enumerate": False, "improve": False, "random_share": 0.0, "work_seconds": None}

    def seconds(settings: LawSettings) -> float:
        """Of every fourth law, with noise."""
        began = time.process_time()
        for law in HARD[::4]:
            discover_laws(*law.sample(0, 0.02), settings)
        return time.process_time() - began

    searched = LawSettings(**alone, restarts=options.restarts)
    few = LawSettings(**alone, proposals="random", restarts=64)
    many = LawSettings(**alone, proposals="random", restarts=448)
    seconds(searched)  # warms up
    base = seconds(few)
    more = seconds(many)
    goal = seconds(searched)
    # By interpolation of two numbers of graphs.
    graphs = max(64, round(64 + (goal - base) / max(1e-6, more - base) * 384))
    print(f"{options.restarts} supernets take as long as {graphs} random graphs", file=sys.stderr)
    variants = {
        "proposals alone, supernets": searched,
        "proposals alone, random": LawSettings(**alone, proposals="random", restarts=graphs),
        "whole, supernets": LawSettings(
            restarts=options.restarts, random_share=0.5, work_seconds=None
        ),
        "whole, random": LawSettings(
            restarts=graphs,
            random_share=0.5 * options.restarts / graphs,
            proposals="random",
            work_seconds=None,
        ),
    }
    kinds = ["proposals alone"] if options.alone else ["proposals alone", "whole"]
    for name in list(variants):
        if name.split(",")[0] not in kinds:
            del variants[name]
    cells = compare(options, variants, laws)
    table(cells, laws, options.draws)
    for kind in kinds:
        one = [cell for cell in cells if cell.variant == f"{kind}, supernets"]
        other = [cell for cell in cells if cell.variant == f"{kind}, random"]
        gap, low, high = difference(one, other)
        wins = sum(a.recovered and not b.recovered for a, b in zip(one, other, strict=True))
        losses = sum(b.recovered and not a.recovered for a, b in zip(one, other, strict=True))
        times = [sum(cell.cpu_s for cell in some) for some in (one, other)]
        print(
            f"\n{kind}: supernets - random = {gap:+.3f} [{low:+.3f}, {high:+.3f}] of the cells "
            f"({wins} won, {losses} lost of {len(one)}); CPU s {times[0]:.0f} and {times[1]:.0f}"
        )


def levels(options: argparse.Namespace, laws: Sequence[EquationLaw]) -> None:
    """One level or two, and other relaxations and gradients: proposals alone."""
    alone = {
        "enumerate": False,
        "improve": False,
        "random_share": 0.0,
        "restarts": options.restarts,
        "work_seconds": None,
    }
    fewer = {**alone, "restarts": 2 * options.restarts // 3}  # two levels take longer
    variants = {
        "single level": LawSettings(**alone, bilevel=False),
        "bilevel, first order": LawSettings(**alone, bilevel=True, gradient=FirstOrder()),
        "the same in the time of one level": LawSettings(
            **fewer, bilevel=True, gradient=FirstOrder()
        ),
        "bilevel, unrolled": LawSettings(**alone, bilevel=True, gradient=Unrolled()),
        "single level, sigmoid": LawSettings(**alone, relaxation=Sigmoid()),
        "single level, Gumbel": LawSettings(
            **alone, relaxation=GumbelSoftmax(hard=False, temperature=2.0)
        ),
        "single level, sums only": LawSettings(**alone, kinds=("sum",)),
    }
    table(compare(options, variants, laws), laws, options.draws)


def restarts(options: argparse.Namespace) -> None:
    """Time of a training step of K supernets, alternating over K."""
    x_ND, y_N = HARD[2].sample(0, 0.0)
    x_DN = torch.from_numpy(x_ND.T / x_ND.max(0)[:, None])
    ones_N = torch.ones(len(y_N), dtype=torch.float64)
    data = LawData(x_DN, torch.from_numpy(y_N / y_N.max()), ones_N)
    space = EquationGraph(x_ND.shape[1], nodes=2)
    counts = (1, 16, 64, 256)
    steps = 40
    times: dict[int, list[float]] = {k: [] for k in counts}
    for repeat in range(options.repeats + 1):
        for k in counts:
            began = time.process_time()
            search(space, data, SupernetSearch(restarts=k, steps=steps), seed=repeat)
            if repeat:  # the first round warms up
                times[k].append((time.process_time() - began) / steps * 1e3)
    first = statistics.median(times[1])
    print("| restarts K | CPU ms a step, min / median / max | us a restart and step | times one |")
    print("|---|---|---|---|")
    for k, own in times.items():
        middle = statistics.median(own)
        spread = f"{min(own):.2f} / {middle:.2f} / {max(own):.2f}"
        print(f"| {k} | {spread} | {middle / k * 1e3:.0f} | {middle / first:.2f} |")
    print(f"n = {options.repeats}, 2 features, 2 nodes, {len(space.words)} primitives, 100 points")


def file_of(options: argparse.Namespace) -> Path:
    """The file of a public set: the one that was given, or one of the shared data."""
    if options.file:
        return Path(options.file)
    shared = Path(__file__).resolve().parents[2] / "shared" / "data" / "equations"
    return shared / f"{options.set}.yaml"


def public(options: argparse.Namespace) -> None:
    """How many laws of a public set are found; by number of features, and the seconds."""
    laws = public_laws(file_of(options))
    if options.laws:
        laws = [law for law in laws if law.name in options.laws]
    laws = laws[:: options.every]
    for noise in options.noise:
        cells: list[tuple[int, bool, float]] = []
        for law in laws:
            for draw in range(options.first_draw, options.first_draw + options.draws):
                x_ND, y_N = law.sample(draw, noise, POINTS)
                began = time.process_time()
                found = discover_laws(x_ND, y_N, LawSettings(), seed=draw)
                cpu_s = time.process_time() - began
                expression = found.front[found.best].expression(law.names)
                verdict = judged(expression, law, draw, noise)
                cells.append((len(law.names), verdict.recovered, cpu_s))
                mark = "found" if verdict.recovered else "-----"
                print(
                    f"{mark} {law.name:12} {cpu_s:6.2f} s  error {verdict.error:8.1e}  nodes "
                    f"{verdict.nodes:3d} / {verdict.truth_nodes:3d}  {str(expression)[:60]}",
                    flush=True,
                )
        many = [is_found for features, is_found, _ in cells if features >= 4]
        all_found = sum(is_found for _, is_found, _ in cells)
        seconds = [cpu_s for _, _, cpu_s in cells]
        print(
            f"noise {noise:g}: {all_found} of {len(cells)} found; of four and "
            f"more features {sum(many)} of {len(many)}; CPU seconds median "
            f"{statistics.median(seconds):.2f}, largest {max(seconds):.2f}"
        )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["recovery", "gradient", "levels", "restarts", "public"])
    parser.add_argument("--set", choices=[*SETS, "feynman"], default="core")
    parser.add_argument("--file", help="public: the file of the set of laws")
    parser.add_argument("--every", type=int, default=1, help="public: every so many-th law")
    parser.add_argument("--laws", nargs="+", help="only these")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--first-draw", type=int, default=0)
    parser.add_argument("--noise", type=float, nargs="+", default=[0.0, 0.02])
    parser.add_argument("--restarts", type=int, default=64)
    parser.add_argument(
        "--alone", action="store_true", help="gradient: without the comparison of whole searches"
    )
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--out", help="write all cells here, as JSON lines")
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)
    laws = SETS.get(options.set, ())
    if not laws and options.what != "public":
        parser.error(f"{options.set} is a public set: equations.py public --set {options.set}")
    laws = [law for law in laws if not options.laws or law.name in options.laws]
    run(CORE[4], 0.0, 0, "warm-up", LawSettings())
    if options.what == "recovery":
        table(compare(options, {"gradnas": LawSettings()}, laws), laws, options.draws)
    elif options.what == "gradient":
        gradient(options, laws)
    elif options.what == "levels":
        levels(options, laws)
    elif options.what == "public":
        public(options)
    else:
        restarts(options)


if __name__ == "__main__":
    main(sys.argv[1:])
