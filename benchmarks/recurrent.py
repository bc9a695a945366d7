"""Speed of the recurrent models against plain ones, and of training against `torch.nn.LSTM`.

    # batch 64, bptt 35, hidden 300 and 850, V 10,000, 1 thread
    python benchmarks/recurrent.py
    python benchmarks/recurrent.py --parts first --repeats 5

Parts: `first` and `second` (seconds of a search step by the order of the architecture gradient),
`training` (tokens per second of a step of a derived cell with 850 units, and of an LSTM with as
many weights around it), `generation` (tokens per second, one text). The plain models
(`tests/plain_recurrent.py`) have the same weights and masks. Variants take turns in one process, so
that a busy machine slows all of them alike; ratios are of medians of CPU seconds.
"""

from __future__ import annotations

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import nn

from gradnas import (
    AlphaOptimizer,
    FirstOrder,
    Genotype,
    RecurrentCell,
    RecurrentDropout,
    Search,
    TokenLikelihood,
    Unrolled,
    WeightOptimizer,
)
from gradnas.spaces import LanguageModel
from gradnas.spaces.recurrent import kernels

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parent / "tests")]

from plain_recurrent import plain_network, plain_supernet  # noqa: E402
from wt2_mini import LSTMModel  # noqa: E402

DROPOUT = RecurrentDropout(output=0.75, state=0.25, input=0.75, embedding=0.2)
OBJECTIVE = TokenLikelihood(slowness=1e-3)
ORDERS = {"first": FirstOrder(), "second": Unrolled(clip=True)}


def search_steps(order: str, options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """One search step of the plain supernet and of ours."""
    space = RecurrentCell(
        hidden=options.search_hidden, embedding=options.search_hidden, dropout=DROPOUT
    )
    T, B, V = options.bptt, options.batch, options.vocabulary
    tokens = torch.randint(V, (4, T, B), generator=torch.Generator().manual_seed(0))
    hidden = torch.zeros(B, options.search_hidden)

    def loss_from(k: int) -> Callable:
        return lambda net: OBJECTIVE(net(tokens[k], hidden, tokens[k + 1]))[0]

    def stepper(make: Callable) -> Callable[[], None]:
        torch.manual_seed(0)
        weights = WeightOptimizer(
            lr=20.0, lr_end=20.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25
        )
        alphas = AlphaOptimizer(lr=3e-3, betas=(0.9, 0.999))
        search = Search(make(), gradient=ORDERS[order], weights=weights, alphas=alphas)
        losses = [loss_from(0), loss_from(2)]
        return lambda: search.step(*losses) and None

    return {
        "plain": stepper(lambda: plain_supernet(space, V)),
        "gradnas": stepper(lambda: space.supernet(V)),
    }


def training_steps(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """One training step of the derived cell, plain and ours, and of the LSTM."""
    space = RecurrentCell(hidden=options.hidden, embedding=options.hidden, dropout=DROPOUT)
    genotype, V = Genotype.named("DARTS_V2_recurrent"), options.vocabulary
    tokens = torch.randint(
        V, (2, options.bptt, options.batch), generator=torch.Generator().manual_seed(0)
    )

    def stepper(model: LanguageModel) -> Callable[[], None]:
        optimizer = torch.optim.SGD(model.parameters(), lr=20.0, weight_decay=8e-7)

        def step() -> None:
            OBJECTIVE(model(tokens[0], None, tokens[1]))[0].backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.25)
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

        return step

    return {
        "plain": stepper(plain_network(space, genotype, V)),
        "gradnas": stepper(space.network(genotype, V)),
        "nn.LSTM": stepper(LSTMModel(V, options.hidden, len(genotype.recurrent), DROPOUT)),
    }


def generation_steps(options: argparse.Namespace) -> dict[str, Callable[[], None]]:
    """Twenty tokens of one text."""
    space = RecurrentCell(hidden=options.hidden, embedding=options.hidden)
    genotype = Genotype.named("DARTS_V2_recurrent")

    def stepper(model: LanguageModel) -> Callable[[], None]:
        model.eval()

        @torch.no_grad()
        def step() -> None:
            hidden, token = None, torch.zeros(1, 1, dtype=torch.int64)
            for _ in range(20):
                log_prob, hidden = model(token, hidden)
                token = log_prob.argmax(-1)

        return step

    models = (
        plain_network(space, genotype, options.vocabulary),
        space.network(genotype, options.vocabulary),
    )
    return dict(zip(("plain", "gradnas"), map(stepper, models), strict=True))


def measure(part: str, options: argparse.Namespace) -> None:
    """Print one table row for each variant."""
    if part in ORDERS:
        steps, tokens = search_steps(part, options), None
    elif part == "training":
        steps, tokens = training_steps(options), options.bptt * options.batch
    else:
        steps, tokens = generation_steps(options), 20
    found: dict[str, list[tuple[float, float]]] = {}
    for repeat in range(options.repeats + 1):  # the first is a warm-up
        for name, step in steps.items():
            gc.collect()
            cpu, wall = time.process_time(), time.perf_counter()
            step()
            seconds = time.process_time() - cpu, time.perf_counter() - wall
            if repeat:
                found.setdefault(name, []).append(seconds)
    reference = statistics.median(cpu for cpu, _ in found["plain"])
    for name, seconds in found.items():
        cpu, wall = zip(*seconds, strict=True)
        middle = statistics.median(cpu)
        spread = [f"{min(t):.2f} / {statistics.median(t):.2f} / {max(t):.2f}" for t in (cpu, wall)]
        rate = "" if tokens is None else f"{tokens / middle:,.0f}"
        print(
            "| " + " | ".join([part, name, *spread, rate, f"{reference / middle:.2f}x"]) + " |",
            flush=True,
        )


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--bptt", type=int, default=35)
    parser.add_argument("--search-hidden", type=int, default=300)
    parser.add_argument("--hidden", type=int, default=850)
    parser.add_argument("--vocabulary", type=int, default=10000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--threads", type=int, default=1)
    parts = [*ORDERS, "training", "generation"]
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts)
    options = parser.parse_args(arguments)
    torch.set_num_threads(options.threads)
    native = "yes" if kernels.kernels(torch.zeros(1)) is not None else "no"
    print(
        f"batch {options.batch}, bptt {options.bptt}, hidden {options.search_hidden} (search) and "
        f"{options.hidden}, vocabulary {options.vocabulary:,}, {options.threads} thread(s), "
        f"torch {torch.__version__}, compiled kernels: {native}; "
        f"seconds are min / median / max of n = {options.repeats}"
    )
    header = ("part", "variant", "CPU s", "wall s", "tokens per CPU s", "speed against plain")
    print("| " + " | ".join(header) + " |\n" + "|---" * len(header) + "|", flush=True)
    for part in options.parts:
        measure(part, options)


if __name__ == "__main__":
    main(sys.argv[1:])
