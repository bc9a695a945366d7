"""Chains found within a latency budget on the 8x8 digits, against the best of ten random chains within the same budget.

    python benchmarks/latency_budget.py                 # 3 budgets, seeds 0 1 2: some minutes

For each budget: ten chains drawn uniformly from all chains whose latency in the table is within it, and for each seed a
few searches with `ExpectedCost(table, budget_ms=...)` (binary gates), each with the chain derived within the budget. As
in DARTS (arXiv 1806.09055, section 3), the searches of a seed compete: their chains are trained for a short time on the
images of the weights, and the best on the images of the alphas is the seed's result. Then every chain, searched or
random, is trained from fresh weights with each of the seeds, alike, on the 1,000 images of the search, and evaluated
once on 797 others; chains are compared by the mean. So the best of the random chains is chosen by the very images that
they are compared on, the searched ones without them.

Latencies are of a batch of 64 images on one CPU thread, by the clock of CPU time; the derived chains are measured from
end to end afterwards, taking turns.
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import time
from contextlib import nullcontext

import torch
import torch.nn.functional as F
from torch import nn

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
from gradnas.chain import Chain
from gradnas.data import Split, load_images
from gradnas.evaluation import evaluate, recalibrate
from gradnas.latency import Device, Timing, measure, time_interleaved

CPU = torch.device("cpu")
LATENCY_BATCH, SIDE, IMAGES = 64, 8, 1000
SPACE = MBConvChain(
    stem_width=8,
    stem_stride=1,
    first_width=None,
    stages=((8, 2), (16, 2, 2), (32, 2, 2), (64, 2, 2)),
    candidates=("mb2_k3", "mb4_k3", "mb4_k5", "identity"),
    activation="relu",
    last_width=64,
    image_size=SIDE,
)
TIMING = Timing(warmup=5, repeats=40, clock="cpu")


def latency_table() -> tuple[LatencyTable, torch.Tensor]:
    """Every operation of the space on this CPU, and the images it was measured with."""
    view = SPACE.supernet(in_channels=1).cost_view()
    x_BCHW = torch.randn(LATENCY_BATCH, 1, SIDE, SIDE)
    return measure(view, (x_BCHW,), TIMING, {"space": "benchmarks/latency_budget.py"}), x_BCHW


def search(table: LatencyTable, example: torch.Tensor, budget_ms: float, seed: int, train: Split, options) -> Chain:
    """One search within a budget; half of the images train the weights, half the alphas."""
    torch.manual_seed(seed)
    supernet = SPACE.supernet(in_channels=1)
    half = len(train) // 2
    parts = [train.subset(range(half)), train.subset(range(half, len(train)))]
    train_batches = parts[0].batches(50, shuffle=True, seed=seed, device=CPU)
    valid_batches = parts[1].batches(options.valid_batch, shuffle=True, seed=seed + 100, device=CPU)
    found = Search(
        supernet,
        relaxation=BinaryGates(mode="recompute"),
        gradient=Reinforce(samples=options.samples, baseline_decay=0.8) if options.samples else FirstOrder(),
        weights=WeightOptimizer(lr=options.weight_lr, lr_end=0.01, weight_decay=1e-4),
        alphas=AlphaOptimizer(lr=options.alpha_lr, betas=(0.0, 0.999), weight_decay=0.0),
        epochs=options.search_epochs,
        alpha_every=options.alpha_every,
        warmup_epochs=options.warmup_epochs,
        seed=seed,
        cost=ExpectedCost(table, budget_ms=budget_ms, multiplier_lr=options.multiplier_lr, penalty=options.penalty),
        example=example,
    )
    valid_epochs = itertools.chain.from_iterable(valid_batches.epoch(e) for e in itertools.count())
    for epoch in range(options.search_epochs):
        for x, y in train_batches.epoch(epoch):
            loss = None
            if found.alpha_due:
                x_valid, y_valid = next(valid_epochs)
                loss = lambda net: F.cross_entropy(net(x_valid), y_valid)  # noqa: E731
            found.step(lambda net: F.cross_entropy(net(x), y), loss)
        found.finish_epoch()
    result = found.result()
    print(
        f"    expected {found.expected_cost():.2f} ms, multiplier {found.cost_state.multiplier:.2f}, "
        f"derived {result.cost:.2f} ms of {budget_ms:.2f}: {result.choices.to_text()}",
        flush=True,
    )
    if options.show_alphas:
        for name, alpha in found.alphas.items():
            print(f"      {name} {[round(p, 2) for p in alpha.softmax(-1).tolist()]}", flush=True)
    return result.choices


def best_of_searches(table: LatencyTable, example: torch.Tensor, budget_ms: float, seed: int, train: Split, options):
    """The chains of a few searches, and of these the best by a short training on one half, tested on the other."""
    half = len(train) // 2
    first, second = train.subset(range(half)), train.subset(range(half, len(train)))
    chains = [search(table, example, budget_ms, 1000 * seed + k, train, options) for k in range(options.searches)]
    if len(chains) == 1:
        return chains[0]
    marks = {
        chain: statistics.mean(
            train_from_scratch(chain, 1000 * seed + k, first, [second], 2 * options.epochs) for k in range(3)
        )
        for chain in dict.fromkeys(chains)
    }
    print(f"    candidates: {', '.join(f'{SPACE.code(c)} {100 * m:.2f}' for c, m in marks.items())}", flush=True)
    return max(marks, key=marks.__getitem__)


def train_from_scratch(chain: Chain, seed: int, train: Split, tests: list[Split], epochs: int) -> float:
    """Accuracy of a fresh network, trained on `train`, on `tests`."""
    torch.manual_seed(seed)
    network = SPACE.network(chain, in_channels=1)
    batches = train.batches(50, shuffle=True, seed=seed, device=CPU)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, nesterov=True, weight_decay=1e-4)
    steps, step = epochs * len(batches), 0
    network.train()
    for epoch in range(epochs):
        for x, y in batches.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = 0.05 * (1 + math.cos(math.pi * step / steps)) * min(1.0, (step + 1) / 10)
            optimizer.zero_grad()
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
            step += 1
    recalibrate(network, (x for _, (x, _) in zip(range(8), batches.epoch(0), strict=False)))
    right = sum(
        evaluate(network, t.batches(500, shuffle=False, device=CPU).epoch(0))["accuracy"] * len(t) for t in tests
    )
    return right / sum(len(t) for t in tests)


def chains_within(costs, budget_ms: float) -> list[str]:
    """Codes of all chains within the budget by the table."""
    totals = torch.zeros(1, dtype=torch.float64)
    for block in SPACE.blocks:
        totals = (totals.unsqueeze(1) + costs.tables[block.name]).flatten()
    digits = itertools.product(*[map(str, range(len(b.candidates))) for b in SPACE.blocks])
    return [
        "".join(code) for code, total in zip(digits, totals.tolist(), strict=True) if costs.fixed + total <= budget_ms
    ]


def measured_ms(networks: list[nn.Module], example: torch.Tensor) -> list[float]:
    """End to end, taking turns."""
    for net in networks:
        net.eval()
    works = [lambda net=net: nullcontext(lambda: net(example)) for net in networks]
    return [sample.ms for sample in time_interleaved(works, CPU, TIMING)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.1, 0.16, 0.22], help="of the way to the dearest")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--searches", type=int, default=4, help="for each seed; the best by validation counts")
    parser.add_argument("--random", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--search-epochs", type=int, default=70)
    parser.add_argument("--warmup-epochs", type=int, default=32)
    parser.add_argument(
        "--samples", type=int, default=0, help="REINFORCE with so many networks for each step of the alphas"
    )
    parser.add_argument("--alpha-every", type=int, default=2)
    parser.add_argument("--valid-batch", type=int, default=100)
    parser.add_argument("--weight-lr", type=float, default=0.05)
    parser.add_argument("--alpha-lr", type=float, default=0.01)
    parser.add_argument("--multiplier-lr", type=float, default=0.002)
    parser.add_argument("--penalty", type=float, default=0.02)
    parser.add_argument("--show-alphas", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(1)
    began, cpu = time.monotonic(), time.process_time()
    data = load_images("digits")
    train, tests = data.train.subset(range(IMAGES)), [data.train.subset(range(IMAGES, len(data.train))), data.test]
    table, example = latency_table()
    supernet = SPACE.supernet(in_channels=1)
    costs = supernet.costs("latency", (example,), table)
    least = supernet.cheapest(costs)
    most = costs.fixed + sum(float(own.max()) for own in costs.tables.values())
    print(f"{Device.here(CPU)}, torch {torch.__version__}; cheapest chain {least:.2f} ms, dearest {most:.2f} ms")
    seeds, summaries, networks = options.seeds, [], []
    for share in options.shares:
        budget = least + share * (most - least)
        within = chains_within(costs, budget)
        order = torch.randperm(len(within), generator=torch.Generator().manual_seed(1000 + seeds[0]))
        random = [SPACE.decision(within[k]) for k in order[: options.random].tolist()]
        print(f"budget {budget:.2f} ms: {len(within)} of {4 ** len(SPACE.blocks)} chains are within it", flush=True)
        accuracies: dict[str, list[float]] = {}

        def trained(chain: Chain) -> list[float]:
            code = SPACE.code(chain)
            if code not in accuracies:
                accuracies[code] = [train_from_scratch(chain, seed, train, tests, options.epochs) for seed in seeds]
                print(f"    {code}: {', '.join(f'{100 * a:.2f}' for a in accuracies[code])}", flush=True)
            return accuracies[code]

        best = max((trained(chain) for chain in random), key=statistics.mean)
        typical = statistics.mean(statistics.mean(trained(chain)) for chain in random)
        for seed in seeds:
            begin = time.process_time()
            chain = best_of_searches(table, example, budget, seed, train, options)
            search_s = time.process_time() - begin
            summaries.append((budget, seed, chain, trained(chain), best, typical, search_s))
            networks.append(SPACE.network(chain, in_channels=1))
    print(f"\naccuracies: mean (standard deviation) of {len(seeds)} trainings; random: {options.random} chains")
    print("| budget ms | search seed | chain | table ms | measured ms | derived % | best random % | random mean % |")
    print("|---|---|---|---|---|---|---|---|")
    for (budget, seed, chain, found, best, typical, _), ms in zip(
        summaries, measured_ms(networks, example), strict=True
    ):
        late = "" if ms <= 1.1 * budget else " (over the budget + 10%)"
        print(
            f"| {budget:.2f} | {seed} | `{SPACE.code(chain)}` | {supernet.cost_of(chain, costs):.2f} | "
            f"{ms:.2f}{late} | {_percent(found)} | {_percent(best)} | {100 * typical:.2f} |"
        )
    for budget in dict.fromkeys(row[0] for row in summaries):
        own = [row for row in summaries if row[0] == budget]
        margins = [100 * (statistics.mean(row[3]) - statistics.mean(row[4])) for row in own]
        spread = statistics.stdev(margins) if len(margins) > 1 else 0.0
        print(
            f"budget {budget:.2f} ms: derived - best of random {statistics.mean(margins):+.2f} points (standard "
            f"deviation over searches {spread:.2f}), above it in {sum(m > 0 for m in margins)} of {len(margins)} "
            f"seeds of {statistics.mean(row[6] for row in own):.0f} CPU s"
        )
    print(f"CPU {time.process_time() - cpu:.0f} s, wall {time.monotonic() - began:.0f} s")


def _percent(shares: list[float]) -> str:
    spread = f" ({100 * statistics.stdev(shares):.2f})" if len(shares) > 1 else ""
    return f"{100 * statistics.mean(shares):.2f}{spread}"


if __name__ == "__main__":
    main()
