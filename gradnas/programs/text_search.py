"""A search run on text: from a corpus to a recurrent genotype in a run folder; one program, top to
bottom.

Two streams are read, each with its own position and its own hidden state: the training text for the
weights, the validation text for the alphas. A hidden state moves on once for each chunk, by the
weights that the search really has: neither the unrolled weights of an architecture step nor its
perturbed ones leave a trace in it.

Legend: T time steps, B batch (streams of text), H hidden units.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gradnas import distributed, runs
from gradnas.config import read_object, to_json
from gradnas.data import Chunk, Corpus, TextStream, Vocabulary
from gradnas.memory import SavedTensors, measured_peak_mib, step_mib
from gradnas.objectives import Objective, TokenLikelihood
from gradnas.pictures import cells
from gradnas.programs.evaluation import (
    Means,
    evaluate_text,
    perplexity,
)
from gradnas.progress import Progress
from gradnas.randomness import generator_for, mix
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.search import Search
from gradnas.tasks.text.settings import TextSearchConfig

INIT, CHUNKS, NOISE = 31, 32, 33  # streams of random numbers
VOCABULARY = "vocabulary.json"


class CarriedStream:
    """A stream and the hidden state that belongs to its position: what a model was left with by all
    text before it."""

    def __init__(self, stream: TextStream) -> None:
        self.stream = stream
        self.hidden_BH: Tensor | None = None  # None: the beginning of the text

    def next(self, length: int) -> Chunk:
        """The next chunk; at the top of the text the hidden state is put back to nothing."""
        chunk = self.stream.next(length)
        if chunk.starts:
            self.hidden_BH = None
        return chunk

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"stream": self.stream.state_dict(), "hidden": self.hidden_BH}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.stream.load_state_dict(state["stream"])
        hidden = state["hidden"]
        self.hidden_BH = None if hidden is None else hidden.to(self.stream.data_RB.device)


class TextSearchRun:
    """The state of a search run on text: the search, both streams, the trajectory of the alphas."""

    def __init__(self, config: TextSearchConfig, corpus: Corpus, device: torch.device) -> None:
        one_process("a search on text")
        self.config, self.device = config, device
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(mix(config.seed, INIT))
            supernet = config.space.supernet(vocabulary=len(corpus.vocabulary))
        self.search = Search(
            supernet,
            relaxation=config.relaxation,
            gradient=config.gradient,
            weights=config.weights,
            alphas=config.alphas,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            seed=config.seed,
            device=device,
        )
        columns = config.batch_size
        self.train = CarriedStream(TextStream(corpus.train, columns, device, "train"))
        self.valid = CarriedStream(TextStream(corpus.valid, columns, device, "valid"))
        self.held_out = TextStream(corpus.valid, columns, device, "valid")
        self.train_means, self.valid_means = Means(), Means()
        self.memory_mib = 0.0
        self.trajectory = {f"{name}/0000": table for name, table in supernet.tables().items()}
        torch.manual_seed(mix(config.seed, NOISE))  # dropout

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "search": self.search.state_dict(),
            "train": self.train.state_dict(),
            "valid": self.valid.state_dict(),
            "train_means": self.train_means.state_dict(),
            "valid_means": self.valid_means.state_dict(),
            "memory_mib": self.memory_mib,
            "trajectory": self.trajectory,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.train.load_state_dict(state["train"])
        self.valid.load_state_dict(state["valid"])
        self.train_means, self.valid_means = (
            Means(state["train_means"]),
            Means(state["valid_means"]),
        )
        self.memory_mib, self.trajectory = state["memory_mib"], dict(state["trajectory"])
        self.search.load_state_dict(state["search"])

    def step(self) -> StepReport:
        """One step of alphas and weights on the next chunk of either stream."""
        search, config = self.search, self.config
        length = config.chunks.draw(
            generator_for(config.seed, CHUNKS, search.epoch, self.train.stream.row)
        )
        chunk = self.train.next(length)
        read: dict[
            str, tuple[dict[str, Tensor], Tensor]
        ] = {}  # the parts and the hidden state of a stream's last pass
        train_loss = self._loss(chunk, self.train, config.objective, "train", read)
        valid_loss = valid = after_now = None
        if not search.schedule.warming_up:
            valid = self.valid.next(config.chunks.base)
            valid_loss = self._loss(valid, self.valid, TokenLikelihood(), "valid", read)
            # A first-order gradient reads the chunk by the weights of now; any other has a pass of
            # its own for that.
            if config.gradient.needs_inner_step:
                search.probe(valid_loss)
                after_now = read["valid"][1]
        groups = search.weight_optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for (
            group
        ) in groups:  # before the step, so that the inner step of an unrolled gradient has it too
            group["lr"] *= len(chunk.inputs_TB) / config.chunks.base
        report = search.step(train_loss, valid_loss)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        parts, self.train.hidden_BH = read["train"]  # of the last pass: the weight step's
        self.train_means.add(parts, chunk.targets_TB.numel())
        if valid is not None:
            parts, after = read["valid"]
            self.valid.hidden_BH = after if after_now is None else after_now
            self.valid_means.add(parts, valid.targets_TB.numel())
        return report

    def _loss(
        self,
        chunk: Chunk,
        carried: CarriedStream,
        objective: Objective,
        name: str,
        read: dict[str, Any],
    ) -> NetLoss:
        hidden_BH = carried.hidden_BH  # of now: every pass of the step begins with it

        def loss(net: BoundNet) -> Tensor:
            found = net(chunk.inputs_TB, hidden_BH, chunk.targets_TB)
            total, parts = objective(found, chunk.targets_TB)
            read[name] = parts, found.hidden_BH.detach()
            return total

        return loss

    def finish_epoch(self, evaluated: bool) -> dict[str, Any]:
        """The metrics of the epoch that ends, and the schedules moved to the next."""
        search = self.search
        epoch, lr = search.epoch, search.weight_optimizer.param_groups[0]["lr"]
        search.finish_epoch()
        record: dict[str, Any] = {"epoch": epoch, "steps": search.steps, "lr": lr}
        for name, means in (("train", self.train_means), ("search_valid", self.valid_means)):
            if means.count:
                loss = means.values()["loss"]
                record |= {f"{name}_loss": loss, f"{name}_perplexity": perplexity(loss)}
        if evaluated:
            record |= {f"valid_{name}": value for name, value in self._evaluate().items()}
        for name, alpha in search.alphas.items():
            p = search.relaxation.probabilities(alpha.detach().double())
            record[f"entropy_{name}"] = torch.special.entr(p).sum(-1).mean().item()  # nats
        record["genotype"] = search.result().genotype.to_text()
        record["peak_memory_mib"] = self.memory_mib
        self.trajectory |= {
            f"{name}/{epoch + 1:04}": table for name, table in search.supernet.tables().items()
        }
        self.train_means, self.valid_means = Means(), Means()
        return record

    def _evaluate(self) -> dict[str, float]:
        """Loss and perplexity of the mixture on the validation text. The derived cell has no
        BatchNorm, so with these weights it says nothing about itself."""
        supernet, draw = self.search.supernet, self.search.evaluation_draw()
        supernet.eval()
        found = evaluate_text(
            lambda x, h, y: supernet(x, h, y, draw=draw), self.held_out, self.config.chunks.base
        )
        supernet.train()
        return found


def run_text_search(
    config: TextSearchConfig,
    run: runs.Run,
    corpus: Corpus,
    device: torch.device,
    progress: bool = True,
) -> dict[str, Any]:
    """Run a search on text to its end, from where its folder stands.

    Returns:
        The results: genotype, perplexity of the mixture on the validation text.

    Raises:
        NonFiniteError: a loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_same_corpus(run, corpus)
    state = TextSearchRun(config, corpus, device)
    saved, note = run.load_checkpoint()
    if saved is not None:
        state.load_state_dict(saved)
    search, stream = state.search, state.train.stream
    per_epoch = -(-stream.rows // config.chunks.base)  # somewhat more: some chunks are short
    begun = 0 if stream.finished else stream.row // config.chunks.base
    bar = Progress("search", config.epochs, per_epoch, search.epoch, begun, progress)
    with bar, runs.Keeper(run, state.state_dict, config.checkpoint_seconds) as keeper:
        if note:
            bar.say(note)
        stopped = False
        while search.epoch < config.epochs and not stopped:
            epoch, began = search.epoch, time.monotonic()
            search.supernet.train()
            while True:
                report = _step(state)
                bar.step(perplexity=report.train_loss.exp())
                stopped = config.max_steps is not None and search.steps >= config.max_steps
                if stopped or stream.finished:
                    break
                keeper.after_step()
            record = state.finish_epoch(evaluated=not stopped)
            run.append(runs.METRICS, record)
            seconds = {"epoch": epoch, "seconds": time.monotonic() - began}
            run.append(
                runs.TIMINGS, {**seconds, "measured_peak_memory_mib": measured_peak_mib(device)}
            )
            run.save_tensors(runs.ALPHAS, state.trajectory)
            bar.epoch(
                epoch, {word: record[name] for name, word in _SHOWN.items() if name in record}
            )
            keeper.after_step()
        keeper.save()
    return _finish(state, run)


# What the line of an epoch shows, in words short enough for 80 columns.
_SHOWN = {
    "train_perplexity": "perplexity",
    "valid_perplexity": "valid",
    "entropy_recurrent": "entropy",
}


def _step(state: TextSearchRun) -> StepReport:
    """One step; the first of each epoch also counts the memory it needs."""
    if state.train.stream.row > 0 and not state.train.stream.finished:
        return state.step()
    with SavedTensors() as kept:
        report = state.step()
    search = state.search
    state.memory_mib = step_mib(
        kept, search.supernet, [search.weight_optimizer, search.alpha_optimizer]
    )
    return report


def _finish(state: TextSearchRun, run: runs.Run) -> dict[str, Any]:
    genotype, last = state.search.result().genotype, run.records()[-1]
    results = {"genotype": genotype.to_text(), "steps": state.search.steps}
    results |= {key: last[key] for key in ("valid_perplexity", "valid_loss") if key in last}
    genotype.save(run.path / runs.GENOTYPE)
    cells.picture(genotype, run.path / runs.PICTURE)
    runs.write_json(run.path / runs.RESULTS, results)
    run.set_status("finished")
    return results


def start_text_search(
    config: TextSearchConfig, path: str | Path, corpus: Corpus, device: torch.device
) -> runs.Run:
    """Make the run folder of a search on text: configuration, environment, vocabulary.

    Raises:
        ValueError: a text that is too short for the batch (says how long it must be); a folder that
            holds a run.
    """
    for name in ("train", "valid"):
        TextStream(corpus.split(name), config.batch_size, name=name)
    run = runs.Run.create(path, to_json(config), config.seed, device)
    runs.write_json(run.path / VOCABULARY, corpus.vocabulary.to_json())
    return run


def check_same_corpus(run: runs.Run, corpus: Corpus) -> None:
    """ValueError if the text is not the one that the run began with."""
    path = run.path / VOCABULARY
    if path.exists() and Vocabulary.from_json(read_object(path), str(path)) != corpus.vocabulary:
        raise ValueError(
            f"the text of {corpus.name} has changed since {run.path} began: its vocabulary is another one"
        )


def one_process(what: str) -> None:
    """ValueError in a run of several processes."""
    if distributed.world() > 1:
        raise ValueError(
            f"{what} runs in one process: start it without torchrun, with a larger batch on one device"
        )
