"""Does the search help? Searched and random cells, and an LSTM, on a part of WikiText-2.

    # equal sizes, trained alike: about a quarter of an hour on 2 cores
    python benchmarks/wt2_mini.py --data ../shared/data/wikitext-2

"wt2-mini": the folder has `test.txt` and `valid.txt` of WikiText-2. Weights train on `test.txt`,
alphas on the first half of `valid.txt`, and the second half is read once, at the end. Every cell is
trained from scratch for the same few epochs with the same seed; the best of its validation losses
(on the first half) says which epoch counts.

The LSTM is `nn.LSTM` with a projection to the size of the embedding, so wide that it has as many
weights as the cell.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path

import torch
from torch import Tensor, nn

from gradnas import (
    AlphaOptimizer,
    FirstOrder,
    Genotype,
    RecurrentCell,
    RecurrentDropout,
    WeightOptimizer,
)
from gradnas.data import ChunkLengths, TextConfig
from gradnas.programs.searching import run_search, start_search
from gradnas.programs.training import start_training, train
from gradnas.randomness import generator_for
from gradnas.spaces import LanguageModel
from gradnas.spaces.recurrent.recurrent_network import LanguageLoss
from gradnas.spaces.recurrent.token_loss import run_token_loss
from gradnas.tasks.text.settings import TextSearchConfig, TextTrainConfig

CPU = torch.device("cpu")
DROPOUT = RecurrentDropout(output=0.3, state=0.1, input=0.2)


class LSTMModel(LanguageModel):
    """The same model around `nn.LSTM`; its two states travel side by side as one."""

    def __init__(self, vocabulary: int, hidden: int, nodes: int, dropout: RecurrentDropout) -> None:
        super().__init__(vocabulary, hidden, nodes, dropout)
        wanted = self.first_weight.numel() + self.node_weights.numel()
        del self.first_weight, self.node_weights
        # 4 gates of input, projected state and two biases, and the projection: linear in the number
        # of units
        units = round(wanted / (4 * (2 * hidden + 2) + hidden))
        self.lstm = nn.LSTM(hidden, units, proj_size=hidden)

    def initial_hidden(self, batch: int) -> Tensor:
        return self.decoder_bias.new_zeros(batch, self.hidden + self.lstm.hidden_size)

    def recur(self, mask_BH, input_TBG, hidden_BH, draw):
        raise AssertionError("the LSTM has a pass of its own")

    def forward(self, tokens_TB, hidden_BH=None, targets_TB=None):
        B, drop = tokens_TB.shape[1], self.dropout
        hidden_BH = self.initial_hidden(B) if hidden_BH is None else hidden_BH
        x_TBE = self.embedding(tokens_TB)
        mask = self._mask(drop.input, B, self.hidden)
        x_TBE = x_TBE if mask is None else x_TBE * mask
        h_BH, c_BU = hidden_BH.split([self.hidden, self.lstm.hidden_size], dim=1)
        states_TBH, (h, c) = self.lstm(x_TBE, (h_BH.contiguous()[None], c_BU.contiguous()[None]))
        mask = self._mask(drop.output, B, self.hidden)
        dropped_TBH = states_TBH if mask is None else states_TBH * mask
        decoder = (self.embedding.weight, self.decoder_bias)
        after = torch.cat([h[0], c[0]], dim=1)
        nll = run_token_loss(dropped_TBH.flatten(0, 1), *decoder, targets_TB.flatten())
        return LanguageLoss(nll, after, states_TBH, dropped_TBH)


@dataclass(frozen=True)
class Job:
    """One search (a seed) and the training of its cell, or the training of a given cell or of the
    LSTM."""

    name: str
    folder: str
    data: TextConfig
    options: argparse.Namespace
    seed: int | None = None
    genotype: str | None = None


def work(job: Job) -> dict:
    """The result of a job, with CPU seconds."""
    torch.set_num_threads(1)
    options, corpus = job.options, job.data.load()
    genotype, searching = job.genotype, 0.0
    space = RecurrentCell(
        hidden=options.hidden, embedding=options.hidden, nodes=options.nodes, dropout=DROPOUT
    )
    if job.seed is not None:
        began = time.process_time()
        config = TextSearchConfig(
            space=space,
            gradient=FirstOrder(),
            data=job.data,
            epochs=options.search_epochs,
            batch_size=64,
            weights=WeightOptimizer(
                lr=10.0, lr_end=10.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25
            ),
            alphas=AlphaOptimizer(lr=0.02, betas=(0.9, 0.999)),
            seed=job.seed,
        )
        run = start_search(config, f"{job.folder}/{job.name}-search", corpus, CPU)
        genotype = run_search(config, run, corpus, CPU, progress=False)["genotype"]
        searching = time.process_time() - began
    began = time.process_time()
    published = Genotype.named("DARTS_V2_recurrent")
    training = TextTrainConfig(
        space=space,
        genotype=published if genotype is None else Genotype.parse(genotype),
        data=job.data,
        chunks=ChunkLengths(deviation=5.0),
        epochs=options.epochs,
        batch_size=20,
        eval_batch_size=20,
        test_batch_size=20,
        lr=10.0,
        weight_decay=1e-6,
        patience=2,
        seed=1,
    )
    network = None
    if genotype is None:
        torch.manual_seed(1)
        network = LSTMModel(len(corpus.vocabulary), options.hidden, options.nodes, DROPOUT)
    run = start_training(training, f"{job.folder}/{job.name}", corpus, CPU)
    results = train(training, run, corpus, CPU, progress=False, network=network)
    print(f"  {job.name}: {results['test_perplexity']:.1f}", file=sys.stderr, flush=True)
    found = {key: results[key] for key in ("test_perplexity", "valid_perplexity", "num_params")}
    seconds = {"search_cpu_s": searching, "train_cpu_s": time.process_time() - began}
    return {"name": job.name, "genotype": genotype, **found, **seconds}


def mini(source: Path, target: Path) -> None:
    """Write the three splits of wt2-mini."""
    lines = (source / "valid.txt").read_text(encoding="utf-8").splitlines(keepends=True)
    (target / "train.txt").write_text(
        (source / "test.txt").read_text(encoding="utf-8"), encoding="utf-8"
    )
    (target / "valid.txt").write_text("".join(lines[: len(lines) // 2]), encoding="utf-8")
    (target / "test.txt").write_text("".join(lines[len(lines) // 2 :]), encoding="utf-8")


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, required=True, help="folder with test.txt and valid.txt of WikiText-2"
    )
    parser.add_argument("--hidden", type=int, default=64)
    parser.add_argument("--nodes", type=int, default=8)
    parser.add_argument("--min-count", type=int, default=5, help="rarer words become <unk>")
    parser.add_argument("--search-epochs", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--random", type=int, default=5)
    parser.add_argument("--jobs", type=int, default=2, help="processes at a time, one thread each")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        mini(options.data, folder)
        data = TextConfig(source=str(folder), min_count=options.min_count)
        corpus = data.load()
        sizes = ", ".join(
            f"{name} {len(corpus.split(name)):,}" for name in ("train", "valid", "test")
        )
        print(
            f"wt2-mini: {sizes} tokens, {len(corpus.vocabulary):,} words; "
            f"{vars(replace_data(options))}"
        )
        space = RecurrentCell(hidden=options.hidden, embedding=options.hidden, nodes=options.nodes)
        jobs = [Job(f"searched {k}", scratch, data, options, seed=k) for k in range(options.seeds)]
        for k in range(options.random):
            genotype = space.random_decision(generator_for(7, k)).to_text()
            jobs.append(Job(f"random {k}", scratch, data, options, genotype=genotype))
        jobs.append(Job("LSTM", scratch, data, options))
        jobs.append(
            replace(
                jobs[-1],
                name="DARTS_V2 (published)",
                genotype=Genotype.named("DARTS_V2_recurrent").to_text(),
            )
        )
        with ProcessPoolExecutor(options.jobs, mp_context=get_context("spawn")) as pool:
            results = list(pool.map(work, jobs))
    print(
        "| cell | perplexity (second half of valid) | first half | weights | CPU s search, "
        "training |\n"
        "|---|---|---|---|---|"
    )
    for r in results:
        seconds = f"{r['search_cpu_s']:.0f}, {r['train_cpu_s']:.0f}"
        row = (
            r["name"],
            f"{r['test_perplexity']:.1f}",
            f"{r['valid_perplexity']:.1f}",
            f"{r['num_params']:,}",
            seconds,
        )
        print("| " + " | ".join(row) + " |")
    for kind in ("searched", "random"):
        own = [r["test_perplexity"] for r in results if r["name"].startswith(kind)]
        spread = statistics.stdev(own) if len(own) > 1 else 0.0
        print(
            f"{kind}: {statistics.fmean(own):.1f} (standard deviation {spread:.1f}, n = {len(own)})"
        )
    for r in results:
        print(f"{r['name']}: {json.dumps(r['genotype'])}")


def replace_data(options: argparse.Namespace) -> argparse.Namespace:
    """The options without the folder, for the record."""
    return argparse.Namespace(
        **{name: value for name, value in vars(options).items() if name != "data"}
    )


if __name__ == "__main__":
    main(sys.argv[1:])
