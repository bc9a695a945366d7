"""How often equation discovery finds the law, how long it takes, and what each part of it adds.

    python benchmarks/equations.py recovery --set core --draws 5     # recovered laws, seconds, size
    of what was found python benchmarks/equations.py gradient --set hard --draws 3     # supernets
    against random graphs, at equal time python benchmarks/equations.py levels --set development
    # one level or two; other relaxations, gradients python benchmarks/equations.py restarts
    # time of K supernets side by side

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
import torch
from equation_judge import judge
from equation_laws import CORE, DEVELOPMENT, HARD, EquationLaw

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


def run(law: EquationLaw, noise: float, draw: int, variant: str, settings: LawSettings) -> Cell:
    """Find the law and judge it."""
    x_ND, y_N = law.draw(draw, noise)
    wall, cpu = time.perf_counter(), time.process_time()
    laws = discover_laws(x_ND, y_N, settings, seed=draw)
    cpu, wall = time.process_time() - cpu, time.perf_counter() - wall
    best = laws.front[laws.best]
    expression = best.expression(law.names)
    verdict = judge(expression, law, noise, x_ND)
    recovered = verdict.recovered(noise)
    cell = Cell(
        variant, law.name, noise, draw, recovered, verdict.strict, cpu, wall, best.complexity, verdict.nodes,
        str(expression.evalf(6)),
    )  # fmt: skip
    mark = "strict" if cell.strict else "form" if recovered else "-"
    print(
        f"{variant} {law.name} noise {noise} draw {draw}: {mark} {cpu:.2f} s {cell.expression[:90]}",
        file=sys.stderr,
    )
    return cell


def interval(successes: int, trials: int) -> tuple[float, float]:
    """Wilson's 95% interval of a rate."""
    if trials == 0:
        return 0.0, 1.0
    z, p = 1.96, successes / trials
    middle = (p + z * z / (2 * trials)) / (1 + z * z / trials)
    half = z * math.sqrt(p * (1 - p) / trials + z * z / (4 * trials**2)) / (1 + z * z / trials)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference(one: Sequence[Cell], other: Sequence[Cell]) -> tuple[float, float, float]:
    """Difference of two recovery rates on the same cells, and a 95% interval by a bootstrap over
    the laws."""
    gaps: dict[str, list[int]] = {}
    for a, b in zip(one, other, strict=True):
        assert (a.law, a.noise, a.draw) == (b.law, b.noise, b.draw)
        gaps.setdefault(a.law, []).append(int(a.recovered) - int(b.recovered))
    per_law = np.array([np.mean(g) for g in gaps.values()])
    generator = np.random.default_rng(0)
    means = per_law[generator.integers(len(per_law), size=(10_000, len(per_law)))].mean(1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(per_law.mean()), float(low), float(high)


def table(cells: Sequence[Cell], laws: Sequence[EquationLaw], draws: int) -> None:
    """Per law and in total, as Markdown."""
    for variant in dict.fromkeys(cell.variant for cell in cells):
        for noise in dict.fromkeys(cell.noise for cell in cells):
            some = [cell for cell in cells if cell.variant == variant and cell.noise == noise]
            found, strict = sum(c.recovered for c in some), sum(c.strict for c in some)
            low, high = interval(found, len(some))
            seconds = [c.cpu_s for c in some]
            print(
                f"\n{variant}, noise {noise}: recovered {found} of {len(some)} = {found / len(some):.3f}",
                end=" ",
            )
            print(f"[{low:.3f}, {high:.3f}] (by the printed constants {strict}),", end=" ")
            print(f"on average {found / draws:.2f} of {len(laws)} laws; CPU s", end=" ")
            print(
                f"median {statistics.median(seconds):.2f}, mean {statistics.mean(seconds):.2f}, max {max(seconds):.2f}"
            )
            print(
                "| law | recovered | by the printed constants | median CPU s | median complexity |"
            )
            print("|---|---|---|---|---|")
            for law in laws:
                mine = [c for c in some if c.law == law.name]
                hits, printed = sum(c.recovered for c in mine), sum(c.strict for c in mine)
                middle = [
                    statistics.median(v)
                    for v in ([c.cpu_s for c in mine], [c.complexity for c in mine])
                ]
                print(
                    f"| {law.name} | {hits}/{len(mine)} | {printed} | {middle[0]:.2f} | {middle[1]} |"
                )


def compare(
    options: argparse.Namespace, variants: dict[str, LawSettings], laws: Sequence[EquationLaw]
) -> list[Cell]:
    """All variants on all cells, alternating."""
    cells = [
        run(law, noise, draw, name, settings)
        for draw in range(options.first_draw, options.first_draw + options.draws)
        for law in laws
        for noise in options.noise
        for name, settings in variants.items()
    ]
    if options.out:
        Path(options.out).write_text("".join(json.dumps(asdict(cell)) + "\n" for cell in cells))
    return cells


def gradient(options: argparse.Namespace, laws: Sequence[EquationLaw]) -> None:
    """What the gradient adds: random graphs in the place of the supernets, as many as take the same
    time."""
    alone = {"enumerate": False, "improve": False, "random_share": 0.0, "work_seconds": None}

    def seconds(settings: LawSettings) -> float:
        """Of every fourth law, with noise."""
        began = time.process_time()
        for law in HARD[::4]:
            discover_laws(*law.draw(0, 0.02), settings)
        return time.process_time() - began

    searched = LawSettings(**alone, restarts=options.restarts)
    few, many = (
        LawSettings(**alone, proposals="random", restarts=64),
        LawSettings(**alone, proposals="random", restarts=448),
    )
    seconds(searched)
    base, more, goal = seconds(few), seconds(many), seconds(searched)
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
    variants = {
        name: settings for name, settings in variants.items() if name.split(",")[0] in kinds
    }
    cells = compare(options, variants, laws)
    table(cells, laws, options.draws)
    by = {name: [c for c in cells if c.variant == name] for name in variants}
    for kind in kinds:
        one, other = by[f"{kind}, supernets"], by[f"{kind}, random"]
        gap, low, high = difference(one, other)
        wins = sum(a.recovered and not b.recovered for a, b in zip(one, other, strict=True))
        losses = sum(b.recovered and not a.recovered for a, b in zip(one, other, strict=True))
        times = [sum(c.cpu_s for c in some) for some in (one, other)]
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
    variants = {
        "single level": LawSettings(**alone, bilevel=False),
        "bilevel, first order": LawSettings(**alone, bilevel=True, gradient=FirstOrder()),
        "the same in the time of one level": LawSettings(
            **{**alone, "restarts": 2 * options.restarts // 3}, bilevel=True, gradient=FirstOrder()
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
    x_ND, y_N = HARD[2].draw(0, 0.0)
    x_DN = torch.from_numpy(x_ND.T / x_ND.max(0)[:, None])
    data = LawData(
        x_DN, torch.from_numpy(y_N / y_N.max()), torch.ones(len(y_N), dtype=torch.float64)
    )
    space = EquationGraph(x_ND.shape[1], nodes=2)
    counts, steps = (1, 16, 64, 256), 40
    times: dict[int, list[float]] = {k: [] for k in counts}
    for repeat in range(options.repeats + 1):
        for k in counts:
            began = time.process_time()
            search(space, data, SupernetSearch(restarts=k, steps=steps), seed=repeat)
            if repeat:  # the first round warms up
                times[k].append((time.process_time() - began) / steps * 1e3)
    first = statistics.median(times[1])
    print(
        "| restarts K | CPU ms a step, min / median / max | us a restart and step | times one |\n|---|---|---|---|"
    )
    for k, found in times.items():
        m = statistics.median(found)
        print(
            f"| {k} | {min(found):.2f} / {m:.2f} / {max(found):.2f} | {m / k * 1e3:.0f} | {m / first:.2f} |"
        )
    print(f"n = {options.repeats}, 2 features, 2 nodes, {len(space.words)} primitives, 100 points")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["recovery", "gradient", "levels", "restarts"])
    parser.add_argument("--set", choices=list(SETS), default="core")
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
    laws = [law for law in SETS[options.set] if not options.laws or law.name in options.laws]
    run(CORE[4], 0.0, 0, "warm-up", LawSettings())
    if options.what == "recovery":
        table(compare(options, {"gradnas": LawSettings()}, laws), laws, options.draws)
    elif options.what == "gradient":
        gradient(options, laws)
    elif options.what == "levels":
        levels(options, laws)
    else:
        restarts(options)


if __name__ == "__main__":
    main(sys.argv[1:])
