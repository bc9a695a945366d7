"""Chains within 40, 60 and 80 million multiply-adds, of one short search: several ways to take one.

    python benchmarks/chains_within.py --seed 0 [--rows FILE]

The recipe `nas-bench-macro-small` (images at 16 pixels, some hundred of each class); what it finds
is looked up in the truth of all 6,561 chains. A budget says what may be taken, and not how the
search learns, so one supernet serves all three: taken are the likeliest chain within each, the best
by SWAP of the 32 likeliest and 256 random ones, which is what the recipe does, the best by SWAP of
the random ones alone, which needs no search, and the best of a few by the loss of the supernet's
weights. A row is a line of JSON that is added to a file. Data and truth are not part of this
repository.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

from gradnas import ExpectedCost, ScoreSelection, Truth
from gradnas.families.recipes import search_recipe
from gradnas.programs.searching import prepared_search
from gradnas.search.choosing import best_candidate
from gradnas.search.judging import as_it_was
from gradnas.tasks.images.settings import SearchConfig
from gradnas.tasks.outcome import LOSS

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
BUDGETS = (40, 60, 80)  # million multiply-adds of an image of 32 pixels


def config_of(args: argparse.Namespace) -> SearchConfig:
    """The recipe, with the largest budget."""
    config = search_recipe("nas-bench-macro-small")
    assert isinstance(config, SearchConfig)
    return replace(
        config,
        data=replace(config.data, source=args.data),
        epochs=args.epochs,
        cost=ExpectedCost(budget_macs=max(BUDGETS) * 1e6),
        candidates=0,
        seed=args.seed,
        device="cpu",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default=str(SHARED / "cifar10"))
    parser.add_argument("--truth", default=str(SHARED / "nas-bench-macro" / "cifar10.npz"))
    parser.add_argument("--rows", type=Path, help="a file to which the row is added")
    parser.add_argument("--table", action="store_true", help="only print the rows of --rows")
    for name, value in (("seed", 0), ("epochs", 8), ("measured", 6)):
        parser.add_argument(f"--{name}", type=int, default=value)
    args = parser.parse_args()
    truth = Truth.load(args.truth)
    if args.table:
        print(table([json.loads(line) for line in args.rows.read_text().splitlines()], truth))
        return
    torch.set_num_threads(1)
    config = config_of(args)
    task: Any = prepared_search(config, config.load(), torch.device("cpu"))
    began = time.process_time()
    record: dict[str, Any] = {}
    for _ in range(config.epochs):
        task.start_epoch()
        for batch in task.batches():
            task.step(batch)
        record = task.finish_epoch(False)
        print(_shown(record), flush=True)
    row: dict[str, Any] = {"seed": args.seed, "epochs": args.epochs}
    row["cpu_seconds"] = round(time.process_time() - began, 1)
    row["relative_entropy"] = record.get("relative_entropy")
    row["undecided"] = task.decidedness.undecided()
    row["within"] = {}
    for budget in BUDGETS:
        row["within"][str(budget)] = _within(task, config, truth, budget, args)
        print(budget, row["within"][str(budget)], flush=True)
    row["date"] = datetime.now(UTC).strftime("%Y-%m-%d %H:%M")
    if args.rows is not None:
        with args.rows.open("a") as file:
            file.write(json.dumps(row) + "\n")


def _within(
    task: Any, config: SearchConfig, truth: Truth, budget: int, args: argparse.Namespace
) -> dict[str, Any]:
    """The chains that are taken within a budget, with their truth."""
    search = task.search
    search.cost = ExpectedCost(budget_macs=budget * 1e6)
    began = time.process_time()
    selection = config.selection
    assert isinstance(selection, ScoreSelection)

    def code(chain: Any) -> str:
        found = config.space.short_code(chain)
        assert found is not None
        return found

    with as_it_was(search.passes.seed, ()):
        result = search.results(1, budget=budget * 1e6)[0]
        judge = task.judge(result, LOSS)
        score = judge.by_score(selection.drawings)
        # The random ones are the same in both.
        score.architecture = functools.cache(score.architecture)  # type: ignore[method-assign]
        chosen = best_candidate(search, result, score, selection.candidates)
        seconds = time.process_time() - began
        at_random = best_candidate(search, result, score, (0, selection.random))
        measured = best_candidate(search, result, judge, (args.measured, args.measured))
    taken = {
        "likeliest": result.decision,
        "by SWAP": chosen.decision,
        "by SWAP, random ones alone": at_random.decision,
        f"{args.measured} likeliest and {args.measured} random, by shared weights": (
            measured.decision
        ),
    }
    within = truth.within("multiply_adds", budget * 1e6)
    found: dict[str, Any] = {"cpu_seconds": round(seconds, 1)}  # of the way "by SWAP"
    for name, chain in taken.items():
        accuracy = within.accuracy(chain, config.space)
        better = 1.0 - within.percentile(accuracy) / 100.0
        found[name] = [code(chain), round(accuracy, 2), round(better, 3)]
    return found


def table(rows: list[dict[str, Any]], truth: Truth) -> str:
    """Budgets and ways in Markdown, over the seeds."""
    lines = [
        "| million multiply-adds | way | chains, accuracy, share that is better | mean |",
        "|---|---|---|---|",
    ]
    for budget in map(str, BUDGETS):
        ways = [name for name in rows[0]["within"][budget] if name != "cpu_seconds"]
        for name in ways:
            own = [row["within"][budget][name] for row in rows]
            shown = ", ".join(f"{chain} {value:.2f} ({place:.1%})" for chain, value, place in own)
            mean = sum(value for _, value, _ in own) / len(own)
            lines.append(f"| {budget} | {name} | {shown} | {mean:.2f} |")
        within = truth.within("multiply_adds", float(budget) * 1e6)
        one, ten = (within.best_of_random(n).mean for n in (1, 10))
        lines.append(
            f"| {budget} | one random chain, the best of ten by the truth | exact | "
            f"{one:.2f}, {ten:.2f} |"
        )
    return "\n".join(lines)


def _shown(record: dict[str, Any]) -> str:
    keys = ("epoch", "train_accuracy", "relative_entropy", "weightless_share", "genotype", "health")
    return json.dumps({key: record[key] for key in keys if key in record})


if __name__ == "__main__":
    main()
