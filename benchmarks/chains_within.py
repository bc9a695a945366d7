"""Chains within 40, 60 and 80 million multiply-adds: several ways to take one from a short search.

    python benchmarks/chains_within.py --way softmax --seed 0

A small search on the space of NAS-Bench-Macro (images at 16 pixels, some hundred of each class);
what it finds is looked up in the truth of all 6,561 chains. One supernet serves all three budgets:
taken are the likeliest chain within each, the best of some likeliest ones and the best of some
random ones, by the loss of the supernet's weights on held-out images. A row is a line of JSON that
is added to a file. Data and truth are not part of this repository.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import torch

from gradnas import AlphaOptimizer, ExpectedCost, Reinforce, Softmax
from gradnas.families.recipes import search_recipe
from gradnas.programs.searching import prepared_search
from gradnas.randomness import generator_for
from gradnas.spaces.affordable import cost_of
from gradnas.tasks.evaluation import recalibrate
from gradnas.tasks.images.settings import SearchConfig

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BUDGETS = (40, 60, 80)  # million multiply-adds of an image of 32 pixels
DRAWS = 99  # stream of random numbers
BATCHES = (2, 3)  # for BatchNorm's statistics, and to measure on

WAYS: dict[str, Callable[[SearchConfig], SearchConfig]] = {
    "gates": lambda config: config,
    "reinforce": lambda config: replace(config, gradient=Reinforce(samples=4)),
    # The alphas stay: the weights learn on chains drawn uniformly
    "uniform": lambda config: replace(config, alphas=replace(_alphas(config), lr=1e-9)),
    "softmax": lambda config: replace(
        config, relaxation=Softmax(), alphas=AlphaOptimizer(_alphas(config).lr, (0.5, 0.999), 1e-3)
    ),
}


def _alphas(config: SearchConfig) -> AlphaOptimizer:
    assert config.alphas is not None
    return config.alphas


def config_of(args: argparse.Namespace) -> SearchConfig:
    """The recipe at a small size."""
    config = search_recipe("nas-bench-macro-cifar10")
    assert isinstance(config, SearchConfig)
    data = replace(config.data, source=args.data, image_size=args.side, per_class=args.per_class)
    weights = replace(config.weights, lr=args.lr, warmup_lr=args.lr, clip_norm=5.0)
    share = (args.side / 32) ** 2  # of the multiply-adds, all of which are in maps
    config = replace(
        config,
        data=data,
        valid_per_class=80,
        label_smoothing=0.0,
        epochs=args.epochs,
        warmup_epochs=args.warmup,
        alpha_every=1,
        batch_size=args.batch,
        weights=weights,
        alphas=AlphaOptimizer(args.alpha_lr, (0.0, 0.999), 0.0),
        cost=ExpectedCost(budget_macs=max(BUDGETS) * 1e6 * share),
        seed=args.seed,
        threads=1,
        device="cpu",
    )
    return WAYS[args.way](config)


class Truth:
    """The accuracy of every chain, and those of all within a budget."""

    def __init__(self, path: str) -> None:
        with np.load(path, allow_pickle=False) as file:
            chains = file["chain"].tolist()
            self.accuracy = dict(zip(chains, file["test_accuracy"].tolist(), strict=True))
            self.macs = dict(zip(chains, file["multiply_adds"].tolist(), strict=True))

    def place(self, accuracy: float, budget: int) -> float:
        """The share of the chains within a budget that are better."""
        within = [self.accuracy[c] for c, macs in self.macs.items() if macs <= budget * 1e6]
        return sum(own > accuracy for own in within) / len(within)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--way", choices=WAYS, default="softmax")
    parser.add_argument("--data", default=str(SHARED / "cifar10"))
    parser.add_argument("--truth", default=str(SHARED / "nas-bench-macro" / "cifar10.npz"))
    parser.add_argument("--rows", help="a file to which the row is added")
    for name, value in (("seed", 0), ("epochs", 8), ("warmup", 2), ("per-class", 180)):
        parser.add_argument(f"--{name}", type=int, default=value)
    for name, value in (("side", 16), ("batch", 32), ("likeliest", 5), ("random", 5)):
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--alpha-lr", type=float, default=0.01)
    parser.add_argument("--lr", type=float, default=0.05)
    args = parser.parse_args()
    torch.set_num_threads(1)
    config = config_of(args)
    truth = Truth(args.truth)
    task: Any = prepared_search(config, config.load(), torch.device("cpu"))
    began = time.process_time()
    record: dict[str, Any] = {}
    for _ in range(config.epochs):
        task.start_epoch()
        for batch in task.batches():
            task.step(batch)
        record = task.finish_epoch(False)
        print(_shown(record), flush=True)
    row = {**vars(args), "cpu_seconds": round(time.process_time() - began, 1)}
    row["relative_entropy"] = record.get("relative_entropy")
    row["undecided"] = task.decidedness.undecided()
    row["within"] = {}
    measured: dict[str, float] = {}
    for budget in BUDGETS:
        row["within"][budget] = _within(task, config, truth, budget, args, measured)
        print(budget, row["within"][budget], flush=True)
    row["cpu_seconds_in_all"] = round(time.process_time() - began, 1)
    print(json.dumps(row))
    if args.rows is not None:
        with Path(args.rows).open("a") as file:
            file.write(json.dumps(row) + "\n")


def _within(
    task: Any,
    config: SearchConfig,
    truth: Truth,
    budget: int,
    args: argparse.Namespace,
    measured: dict[str, float],
) -> dict[str, Any]:
    """The chains that are taken within a budget, with their truth."""
    limit = budget * 1e6 * (args.side / 32) ** 2
    likeliest = [result.decision for result in task.search.results(args.likeliest, budget=limit)]
    drawn = list(itertools.islice(_random(task, limit, args.seed + budget), args.random))

    def code(chain: Any) -> str:
        found = config.space.short_code(chain)
        assert found is not None
        return found

    for chain in [*likeliest, *drawn]:
        if code(chain) not in measured:
            measured[code(chain)] = _loss(task, chain)

    def best(chains: list[Any]) -> str:
        return min((code(chain) for chain in chains), key=measured.__getitem__)

    taken = {
        "likeliest": code(likeliest[0]),
        "best of likeliest": best(likeliest),
        "best of random": best(drawn),
    }
    found: dict[str, Any] = {}
    for name, chain in taken.items():
        accuracy = truth.accuracy[chain]
        found[name] = [chain, round(accuracy, 2), round(truth.place(accuracy, budget), 3)]
    losses = [measured[code(chain)] for chain in drawn]
    accuracies = [truth.accuracy[code(chain)] for chain in drawn]
    found["correlation"] = round(float(np.corrcoef(losses, accuracies)[0, 1]), 2)
    return found


def _random(task: Any, limit: float, seed: int) -> Iterator[Any]:
    """Random chains within a limit."""
    generator = generator_for(seed, DRAWS)
    supernet = task.search.supernet
    while True:
        chain = supernet.random_decision(generator)
        if cost_of(supernet, chain, task.search.spending.costs) <= limit:
            yield chain


def _loss(task: Any, chain: Any) -> float:
    """Of a chain with the weights of the supernet, on held-out images."""
    network = task.laid_out(task.search.supernet.derived(chain))
    recalibrate(network, itertools.islice(task.train.epoch(0), BATCHES[0]), task.outputs)
    return task.evaluated(network, BATCHES[1])["loss"]


def _shown(record: dict[str, Any]) -> str:
    keys = ("epoch", "train_accuracy", "relative_entropy", "weightless_share", "genotype", "health")
    return json.dumps({key: record[key] for key in keys if key in record})


if __name__ == "__main__":
    main()
