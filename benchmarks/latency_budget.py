"""Chains found within a latency budget, against the best of ten random chains within it.

    # CIFAR-10; 3 budgets, seeds 0 1 2: 80 minutes of one core
    python benchmarks/latency_budget.py --data FOLDER
    # one budget, and another beside it; then all of them
    python benchmarks/latency_budget.py --data FOLDER --table T --results R --shares 0.2
    python benchmarks/latency_budget.py --data FOLDER --table T --results R

Ten blocks with four candidates each, images of 16x16. For each budget and each seed, one search
with `ExpectedCost(table, budget_ms=...)`, binary gates and REINFORCE: 10,000 images for the
weights, 5,000 for the alphas. Of the eight most probable chains within the budget (the first is the
one that the search derives), the best on the 5,000 images after two short trainings on the 10,000
is the result. Beside it, ten chains are drawn uniformly from all chains whose latency in the table
is within the budget. All are then trained from fresh weights twice, alike, on the 10,000 images
with other seeds, and evaluated once on the 10,000 test images; chains are compared by the mean. So
the best of the random chains is chosen by the very images that they are compared on, the searched
one without them.

Latencies are of a batch of 64 images on one CPU thread, by the clock of CPU time. The chains that
were found are measured from end to end at the end, taking turns, and all operations once more
beside them, to tell an error of the table from a machine that has become slower.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gradnas import (
    AlphaOptimizer,
    BinaryGates,
    ExpectedCost,
    FirstOrder,
    LatencyTable,
    MBConvChain,
    Reinforce,
    Search,
    WeightOptimizer,
)
from gradnas.architectures.chain import Chain
from gradnas.data import Split, load_images
from gradnas.latency import Costs, Device, Timing, measure, time_interleaved
from gradnas.spaces.affordable import cost_of, least_cost
from gradnas.tasks.evaluation import recalibrate
from gradnas.tasks.images.evaluation import evaluate

CPU = torch.device("cpu")
LATENCY_BATCH, SIDE = 64, 16
SPACE = MBConvChain(
    stem_width=8,
    stem_stride=2,
    first_width=None,
    stages=((8, 2, 2), (16, 4, 2), (32, 4, 2)),
    candidates=("mb1_k3", "mb2_k3", "mb6_k3", "identity"),
    activation="relu",
    last_width=128,
    image_size=SIDE,
)
TIMING = Timing(warmup=5, repeats=40, clock="cpu")


@dataclass(frozen=True)
class Row:
    """One search and the random chains beside it; accuracies of the trainings of a chain, or their
    mean."""

    share: float
    seed: int
    budget: float
    code: str
    derived: list[float]
    best: list[float]
    means: list[float]
    search_s: float


def loss_on(x_BCHW: Tensor, y_B: Tensor) -> Callable[[nn.Module], Tensor]:
    """The loss of a network on one batch."""
    return lambda net: F.cross_entropy(net(x_BCHW), y_B)


def search(
    table: LatencyTable,
    example: Tensor,
    budget_ms: float,
    seed: int,
    train: Split,
    valid: Split,
    options,
) -> Search:
    """One search within a budget: `train` for the weights, `valid` for the alphas."""
    torch.manual_seed(seed)
    supernet = SPACE.supernet(in_channels=3).to(memory_format=torch.channels_last)
    train_batches = train.batches(50, shuffle=True, seed=seed, device=CPU)
    valid_batches = valid.batches(100, shuffle=True, seed=seed, device=CPU)
    found = Search(
        supernet,
        relaxation=BinaryGates(mode="recompute"),
        gradient=Reinforce(samples=options.samples, baseline_decay=0.9)
        if options.samples
        else FirstOrder(),
        weights=WeightOptimizer(lr=0.1, lr_end=options.weight_lr_end, weight_decay=1e-4),
        alphas=AlphaOptimizer(lr=options.alpha_lr, betas=(0.0, 0.999), weight_decay=0.0),
        epochs=options.search_epochs,
        warmup_epochs=options.warmup_epochs,
        seed=seed,
        cost=ExpectedCost(
            table, budget_ms=budget_ms, multiplier_lr=options.multiplier_lr, penalty=options.penalty
        ),
        example=example,
    )
    valid_epochs = itertools.chain.from_iterable(valid_batches.epoch(e) for e in itertools.count())
    for epoch in range(options.search_epochs):
        for x, y in train_batches.epoch(epoch):
            valid_loss = loss_on(*next(valid_epochs)) if found.alpha_due else None
            found.step(loss_on(x, y), valid_loss)
        found.finish_epoch()
    result = found.result()
    print(
        f"    seed {seed}: expected {found.expected_cost():.2f} ms, multiplier "
        f"{found.cost_state.multiplier:.2f}, "
        f"derived {result.cost:.2f} ms of {budget_ms:.2f}: {SPACE.code(result.choices)}",
        flush=True,
    )
    for name, alpha in found.alphas.items():
        print(
            f"      {name}: {', '.join(f'{p:.2f}' for p in alpha.softmax(-1).flatten().tolist())}",
            flush=True,
        )
    return found


def code_of(row: Tensor) -> str:
    """The digits of a chain from its columns."""
    return "".join(map(str, row.tolist()))


def best_by_validation(
    chains: list[Chain], seed: int, train: Split, valid: Split, options
) -> Chain:
    """Of a few chains, the best by the mean of two short trainings, on the images of the alphas."""
    if len(chains) == 1:
        return chains[0]
    marks = {
        chain: statistics.mean(
            train_from_scratch(chain, 1000 + 10 * seed + k, train, valid, options.epochs)
            for k in range(2)
        )
        for chain in chains
    }
    print(
        f"    candidates: {', '.join(f'{SPACE.code(c)} {100 * m:.2f}' for c, m in marks.items())}",
        flush=True,
    )
    return max(marks, key=marks.__getitem__)


def train_from_scratch(chain: Chain, seed: int, train: Split, test: Split, epochs: int) -> float:
    """Accuracy of a fresh network, trained on `train`, on `test`."""
    torch.manual_seed(seed)
    network = SPACE.network(chain, in_channels=3).to(memory_format=torch.channels_last)
    batches = train.batches(100, shuffle=True, seed=seed, device=CPU)
    optimizer = torch.optim.SGD(
        network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4
    )
    steps, step = epochs * len(batches), 0
    network.train()
    for epoch in range(epochs):
        for x, y in batches.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = (
                    0.05 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / 20)
                )
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
            step += 1
    recalibrate(network, (x for _, (x, _) in zip(range(8), batches.epoch(0), strict=False)))
    return evaluate(network, test.batches(500, shuffle=False, device=CPU).epoch(0))["accuracy"]


def chains_within(costs: Costs, budget_ms: float) -> Tensor:
    """All chains within the budget by the table: a row of columns for each, one column for each
    block."""
    totals = torch.full((), costs.fixed, dtype=torch.float64)
    for block in SPACE.blocks:
        totals = totals.unsqueeze(-1) + costs.tables[block.name].reshape(-1)
    return (totals <= budget_ms).nonzero()


def measured_table(example: Tensor) -> LatencyTable:
    """Every operation of the space, here and now."""
    return measure(
        SPACE.supernet(in_channels=3).cost_view(),
        (example,),
        TIMING,
        {"space": "latency_budget.py"},
    )


def trainer(train: Split, test: Split, options) -> Callable[[Chain], list[float]]:
    """A function that returns the test accuracies of a chain, and trains each chain once."""
    accuracies: dict[str, list[float]] = {}

    def trained(chain: Chain) -> list[float]:
        code = SPACE.code(chain)
        if code not in accuracies:
            accuracies[code] = [
                train_from_scratch(chain, k, train, test, options.epochs)
                for k in range(options.trainings)
            ]
            shown = ", ".join(f"{100 * accuracy:.2f}" for accuracy in accuracies[code])
            print(f"    {code}: {shown}", flush=True)
        return accuracies[code]

    return trained


def measured_ms(networks: list[nn.Module], example: Tensor) -> list[float]:
    """End to end, taking turns."""
    for net in networks:
        net.eval()
    works = [partial(nullcontext, partial(net, example)) for net in networks]
    return [sample.ms for sample in time_interleaved(works, CPU, TIMING)]


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", default="cifar10", help="a folder with CIFAR-10, or its name on the hub"
    )
    parser.add_argument(
        "--table", type=Path, help="latency table to use, or to write if the file does not exist"
    )
    parser.add_argument(
        "--shares", type=float, nargs="+", default=[0.2, 0.3, 0.4], help="of the way to the dearest"
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument(
        "--random", type=int, default=10, help="random chains for each seed, at least one"
    )
    parser.add_argument("--trainings", type=int, default=2, help="of each chain")
    parser.add_argument("--images", type=int, default=10_000, help="to train with")
    parser.add_argument("--epochs", type=int, default=5, help="of each training")
    parser.add_argument("--search-epochs", type=int, default=60)
    parser.add_argument("--warmup-epochs", type=int, default=45)
    parser.add_argument(
        "--candidates",
        type=int,
        default=8,
        help="most probable chains, the best by validation counts",
    )
    parser.add_argument("--weight-lr-end", type=float, default=1e-3)
    parser.add_argument(
        "--samples",
        type=int,
        default=6,
        help="networks for each step of REINFORCE; 0: gate gradients",
    )
    parser.add_argument("--alpha-lr", type=float, default=0.01)
    parser.add_argument("--multiplier-lr", type=float, default=1e-4)
    parser.add_argument("--penalty", type=float, default=0.3)
    parser.add_argument(
        "--results",
        type=Path,
        help="file (JSON lines) to add results to; what it has is not run again",
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, cpu = time.monotonic(), time.process_time()
    data = load_images(options.data, image_size=SIDE)
    train, test = data.train.subset(range(options.images)), data.test
    valid = data.train.subset(range(options.images, options.images * 3 // 2))
    example = torch.randn(LATENCY_BATCH, 3, SIDE, SIDE)
    if options.table is not None and options.table.exists():
        table = LatencyTable.load(options.table)
    else:
        table = measured_table(example)
        if options.table is not None:
            table.save(options.table)
    supernet = SPACE.supernet(in_channels=3)
    costs = supernet.costs("latency", (example,), table)
    least = least_cost(supernet, costs)
    most = costs.fixed + sum(float(own.max()) for own in costs.tables.values())
    print(
        f"{Device.here(CPU)}, torch {torch.__version__}; cheapest chain {least:.2f} ms, dearest "
        f"{most:.2f} ms"
    )
    known = options.results is not None and options.results.exists()
    finished = options.results.read_text().splitlines() if known else []
    rows = {(row.share, row.seed): row for row in (Row(**json.loads(line)) for line in finished)}
    for share in options.shares:
        budget = least + share * (most - least)
        within = chains_within(costs, budget)
        print(
            f"budget {budget:.2f} ms: {len(within):,} of {4 ** len(SPACE.blocks):,} chains are "
            "within it",
            flush=True,
        )
        trained = trainer(train, test, options)
        for seed in options.seeds:
            if (share, seed) in rows:
                continue
            begin = time.process_time()
            found = search(table, example, budget, seed, train, valid, options)
            chains = [result.choices for result in found.results(options.candidates)]
            chain = best_by_validation(chains, seed, train, valid, options)
            search_s = time.process_time() - begin
            derived = trained(chain)
            drawn = torch.randperm(len(within), generator=torch.Generator().manual_seed(seed))[
                : options.random
            ]
            random = [trained(SPACE.decision(code_of(within[k]))) for k in drawn.tolist()]
            best, means = max(random, key=statistics.mean), [statistics.mean(own) for own in random]
            rows[share, seed] = row = Row(
                share, seed, budget, SPACE.code(chain), derived, best, means, search_s
            )
            if options.results is not None:
                with options.results.open("a") as file:
                    file.write(json.dumps(asdict(row)) + "\n")
    shown = [rows[share, seed] for share in options.shares for seed in options.seeds]
    chains = [SPACE.decision(row.code) for row in shown]
    times = measured_ms([SPACE.network(chain, in_channels=3) for chain in chains], example)
    now = supernet.costs("latency", (example,), measured_table(example))  # the machine drifts
    print(
        f"\naccuracies: mean (standard deviation) of {options.trainings} trainings; random: "
        f"{options.random} chains"
    )
    print(
        "| budget ms | seed | chain | table ms | measured | table now | derived % | best random % "
        "| random chains % |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for row, chain, ms in zip(shown, chains, times, strict=True):
        late = "" if ms <= 1.1 * row.budget else " (over the budget + 10%)"
        print(
            f"| {row.budget:.2f} | {row.seed} | `{row.code}` | "
            f"{cost_of(supernet, chain, costs):.2f} | {ms:.2f}{late} | "
            f"{cost_of(supernet, chain, now):.2f} | "
            f"{_percent(row.derived)} | {_percent(row.best)} | {_percent(row.means)} |"
        )
    for share in options.shares:
        own = [row for row in shown if row.share == share]
        margins = [100 * (statistics.mean(row.derived) - statistics.mean(row.best)) for row in own]
        print(
            f"budget {own[0].budget:.2f} ms: derived - best of random {_points(margins)}, above it "
            "in "
            f"{sum(m > 0 for m in margins)} of {len(margins)} seeds; a search took "
            f"{statistics.mean(row.search_s for row in own):.0f} CPU s"
        )
    print(f"CPU {time.process_time() - cpu:.0f} s, wall {time.monotonic() - began:.0f} s")


def _points(margins: list[float]) -> str:
    spread = (
        f" (standard deviation over seeds {statistics.stdev(margins):.2f})"
        if len(margins) > 1
        else ""
    )
    return f"{statistics.mean(margins):+.2f} points{spread}"


def _percent(shares: list[float]) -> str:
    spread = f" ({100 * statistics.stdev(shares):.2f})" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f}{spread}"


if __name__ == "__main__":
    main()
