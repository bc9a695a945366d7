"""Latencies of chains against the sums of a table, and the predictor on unseen operations.

    # 200 random chains at 32x32, one CPU thread: a few minutes
    python benchmarks/latency_model.py

The space is a chain of 8 blocks at 32x32 with 7 candidates each. Operations and chains are timed by
the same clock, of CPU time, batch 1. All chains take turns (or those of a group). The operations
are timed before, between and after the groups, and the median of these tables is used, so that a
drift of the machine over the minutes meets both sides.
"""

from __future__ import annotations

import argparse
import statistics
import time
from contextlib import nullcontext
from dataclasses import replace
from functools import partial

import numpy as np
import torch
from scipy.stats import spearmanr

from gradnas import LatencyTable, MBConvChain
from gradnas.latency import Device, Timing, measure, time_interleaved
from gradnas.latency.fit import fit
from gradnas.spaces.affordable import cost_of

CPU = torch.device("cpu")


def space(side: int) -> MBConvChain:
    """CIFAR-size chain with blocks of three widths."""
    return MBConvChain(
        stem_width=16,
        stem_stride=1,
        first_width=None,
        stages=((16, 2), (24, 3, 2), (40, 3, 2)),
        candidates=("mb3_k3", "mb6_k3", "mb3_k5", "mb6_k5", "mb3_k7", "mb6_k7", "identity"),
        last_width=128,
        image_size=side,
    )


def median_table(tables: list[LatencyTable]) -> LatencyTable:
    """Entry by entry."""
    first = tables[0]
    entries = {
        key: replace(entry, ms=statistics.median(t.entries[key].ms for t in tables))
        for key, entry in first.entries.items()
    }
    return replace(first, entries=entries)


def held_out_r2(table: LatencyTable, splits: int) -> list[float]:
    """R2 on a fifth of the operations, from a fit on the other four fifths, for several random
    divisions."""
    entries = [entry for entry in table.entries.values() if entry.features]
    y_N = np.array([entry.ms for entry in entries])
    found = []
    for seed in range(splits):
        order = np.random.default_rng(seed).permutation(len(entries))
        out, known = order[: len(order) // 5], order[len(order) // 5 :]
        predictor = fit([entries[k].features for k in known], y_N[known].tolist())
        guess_N = np.array([predictor.predict(entries[k].features) for k in out])
        found.append(
            1.0
            - float(((guess_N - y_N[out]) ** 2).sum() / ((y_N[out] - y_N[out].mean()) ** 2).sum())
        )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--chains", type=int, default=200)
    parser.add_argument("--side", type=int, default=32)
    parser.add_argument(
        "--repeats", type=int, default=40, help="rounds of operations, and of chains"
    )
    parser.add_argument("--group", type=int, default=200, help="chains that take turns at a time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(options.seed)
    began, cpu = time.monotonic(), time.process_time()
    chain_space = space(options.side)
    timing = Timing(warmup=5, repeats=options.repeats, clock="cpu")
    supernet = chain_space.supernet()
    view, x_BCHW = supernet.cost_view(), torch.randn(1, 3, options.side, options.side)
    generator = torch.Generator().manual_seed(options.seed)
    chains = [chain_space.random_decision(generator) for _ in range(options.chains)]
    tables, measured = [measure(view, (x_BCHW,), timing)], []
    for start in range(0, len(chains), options.group):
        networks = [
            chain_space.network(chain).eval() for chain in chains[start : start + options.group]
        ]
        works = [partial(nullcontext, partial(net, x_BCHW)) for net in networks]
        measured += [sample.ms for sample in time_interleaved(works, CPU, timing)]
        tables.append(measure(view, (x_BCHW,), timing))
    table = median_table(tables)
    costs = supernet.costs("latency", (x_BCHW,), table)
    sums_N = np.array([cost_of(supernet, chain, costs) for chain in chains])
    measured_N = np.array(measured)
    error = np.abs(sums_N - measured_N) / measured_N
    print(
        f"{Device.here(CPU)}, torch {torch.__version__}, {options.side}x{options.side}, batch 1, "
        "clock of CPU time"
    )
    print(
        f"{len(chains)} random chains of {measured_N.min():.2f} to {measured_N.max():.2f} ms, "
        f"{len(table.entries)} "
        f"operations: Spearman {spearmanr(sums_N, measured_N).statistic:.4f}, mean absolute "
        "percentage error "
        f"{100 * error.mean():.2f}% (largest {100 * error.max():.1f}%)"
    )
    print(f"sum / measured: {np.mean(sums_N / measured_N):.3f} on average")
    sizes = [sum(entry.ms for entry in one.entries.values()) for one in tables]
    print(
        f"the {len(tables)} tables of {options.repeats} rounds: totals from {min(sizes):.2f} to "
        f"{max(sizes):.2f} ms"
    )
    r2 = held_out_r2(table, splits=10)
    everything = fit(
        [e.features for e in table.entries.values()], [e.ms for e in table.entries.values()]
    )
    print(
        "predictor, a fifth of the operations held out, 10 divisions: R2 median "
        f"{statistics.median(r2):.3f}, least "
        f"{min(r2):.3f}, first {r2[0]:.3f}; each fifth from the other four: {everything.quality}"
    )
    print(f"CPU {time.process_time() - cpu:.0f} s, wall {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
