"""Training a language model with a derived recurrent cell: one program, top to bottom.

SGD first; when the validation loss stops falling, averaged SGD: the same steps, judged and kept by
the mean of the weights since then. The weights that are kept are those of the best validation loss;
the test text is read once, with them, at the end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import runs
from gradnas.config import read_object, to_json
from gradnas.data import Corpus, TextStream, Vocabulary
from gradnas.memory import SavedTensors, measured_peak_mib, step_mib
from gradnas.pictures import cells
from gradnas.programs.evaluation import (
    Means,
    evaluate_text,
    perplexity,
)
from gradnas.programs.image_training import train_random_cells
from gradnas.programs.text_search import (
    VOCABULARY,
    CarriedStream,
    check_same_corpus,
    one_process,
)
from gradnas.progress import Progress
from gradnas.randomness import generator_for, mix, random_state, set_random_state
from gradnas.runs import NonFiniteError
from gradnas.spaces import LanguageModel, RecurrentNetwork
from gradnas.tasks.text.settings import TextTrainConfig

INIT, CHUNKS, NOISE = 41, 42, 43  # streams of random numbers


def build_text_network(config: TextTrainConfig, vocabulary: int) -> RecurrentNetwork:
    """The freshly initialised network of a training run, a function of the configuration and the
    vocabulary's size."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(mix(config.seed, INIT))
        return config.space.network(config.genotype, vocabulary)


class AveragedWeights:
    """The mean of a network's weights over all steps since it began (averaged SGD, Polyak and
    Juditsky 1992)."""

    def __init__(self, network: nn.Module) -> None:
        self.network, self.count = network, 0
        self.mean = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def add(self) -> None:
        """Count the weights of now."""
        self.count += 1
        for name, p in self.network.named_parameters():
            self.mean[name].lerp_(p, 1.0 / self.count)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {"count": self.count, "mean": dict(self.mean)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.count = state["count"]
        for name, tensor in state["mean"].items():
            self.mean[name].copy_(tensor)


class TextTraining:
    """The state of a training run on text; saved and resumed bit for bit.

    Args:
        network: another language model than that of the configuration, with the same calls (for
            comparisons).
    """

    def __init__(
        self,
        config: TextTrainConfig,
        corpus: Corpus,
        device: torch.device,
        network: LanguageModel | None = None,
    ) -> None:
        one_process("a training on text")
        self.config, self.device = config, device
        self.network = (network or build_text_network(config, len(corpus.vocabulary))).to(device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        self.train = CarriedStream(TextStream(corpus.train, config.batch_size, device, "train"))
        self.valid = TextStream(corpus.valid, config.eval_batch_size, device, "valid")
        self.test = TextStream(corpus.test, config.test_batch_size, device, "test")
        self.averaged: AveragedWeights | None = None  # from the trigger on
        self.valid_losses: list[float] = []
        self.best: dict[str, Any] = {"loss": None, "epoch": None, "weights": {}}
        self.epoch = self.steps = 0
        self.means = Means()
        self.memory_mib = 0.0
        torch.manual_seed(mix(config.seed, NOISE))  # dropout

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain values."""
        return {
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "train": self.train.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "valid_losses": list(self.valid_losses),
            "best": dict(self.best),
            "epoch": self.epoch,
            "steps": self.steps,
            "means": self.means.state_dict(),
            "memory_mib": self.memory_mib,
            "random_state": random_state(self.device),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """The inverse of `state_dict`."""
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.train.load_state_dict(state["train"])
        self.averaged = None
        if state["averaged"] is not None:
            self.averaged = AveragedWeights(self.network)
            self.averaged.load_state_dict(state["averaged"])
        self.valid_losses, self.best = list(state["valid_losses"]), dict(state["best"])
        self.epoch, self.steps, self.memory_mib = (
            state["epoch"],
            state["steps"],
            state["memory_mib"],
        )
        self.means = Means(state["means"])
        set_random_state(state["random_state"], self.device)

    def step(self) -> dict[str, Tensor]:
        """One step of SGD on the next chunk. Raises NonFiniteError before an update that would not
        be finite."""
        config, stream = self.config, self.train.stream
        length = config.chunks.draw(
            generator_for(config.seed, CHUNKS, self.epoch, stream.row % stream.rows)
        )
        chunk = self.train.next(length)
        found = self.network(chunk.inputs_TB, self.train.hidden_BH, chunk.targets_TB)
        loss, parts = config.objective(found, chunk.targets_TB)
        loss.backward()
        size = nn.utils.clip_grad_norm_(self.network.parameters(), config.clip_norm)
        if not torch.isfinite(size + loss.detach()):
            raise NonFiniteError(
                f"epoch {self.epoch}, row {stream.row}: the loss or the gradient is NaN or infinite; the update was "
                "not made. Try a smaller learning rate"
            )
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * len(chunk.inputs_TB) / config.chunks.base
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.averaged is not None:
            self.averaged.add()
        self.train.hidden_BH = found.hidden_BH.detach()
        self.means.add(parts, chunk.targets_TB.numel())
        self.steps += 1
        return parts

    @contextmanager
    def judged_weights(self) -> Iterator[nn.Module]:
        """The network in eval mode with the weights that are judged and kept: averaged ones after
        the switch."""
        own = {name: p.detach().clone() for name, p in self.network.named_parameters()}
        with torch.no_grad():
            if self.averaged is not None and self.averaged.count:
                for name, p in self.network.named_parameters():
                    p.copy_(self.averaged.mean[name])
            self.network.eval()
            yield self.network
            for name, p in self.network.named_parameters():
                p.copy_(own[name])
        self.network.train()

    def _has_stopped_falling(self, loss: float) -> bool:
        """The non-monotone trigger, before `loss` is written down."""
        patience, before = self.config.patience, self.valid_losses
        return patience is not None and len(before) > patience and loss > min(before[:-patience])

    def finish_epoch(self) -> dict[str, Any]:
        """The metrics of the epoch that ends; from the next one on perhaps averaged SGD."""
        config, loss = self.config, self.means.values()["loss"]
        record: dict[str, Any] = {"epoch": self.epoch, "steps": self.steps, "lr": config.lr}
        record |= {"train_loss": loss, "train_perplexity": perplexity(loss)}
        with self.judged_weights() as network:
            found = evaluate_text(network, self.valid)
            weights = {
                name: tensor.detach().clone() for name, tensor in network.state_dict().items()
            }
        if not math.isfinite(found["loss"]):
            raise NonFiniteError(
                f"epoch {self.epoch}: the validation loss is NaN or infinite. Try a smaller learning rate"
            )
        if self.best["loss"] is None or found["loss"] < self.best["loss"]:
            self.best = {"loss": found["loss"], "epoch": self.epoch, "weights": weights}
        record |= {f"valid_{name}": value for name, value in found.items()}
        record |= {"averaged": self.averaged is not None, "peak_memory_mib": self.memory_mib}
        if self.averaged is None and self._has_stopped_falling(found["loss"]):
            self.averaged = AveragedWeights(self.network)
        self.valid_losses.append(found["loss"])
        self.epoch, self.means = self.epoch + 1, Means()
        return record


def train_text(
    config: TextTrainConfig,
    run: runs.Run,
    corpus: Corpus,
    device: torch.device,
    progress: bool = True,
    title: str = "train",
    network: LanguageModel | None = None,
) -> dict[str, Any]:
    """Run a training on text to its end, from where its folder stands; writes metrics, weights and
    results.

    Returns:
        The results: test and validation perplexity of the best weights, weight counts.

    Raises:
        NonFiniteError: the loss became NaN; the last checkpoint is kept.
        runs.Interrupted: Ctrl-C or SIGTERM; the state is saved.
    """
    check_same_corpus(run, corpus)
    training = TextTraining(config, corpus, device, network)
    state, note = run.load_checkpoint()
    if state is not None:
        training.load_state_dict(state)
    stream = training.train.stream
    per_epoch = -(-stream.rows // config.chunks.base)  # somewhat more: some chunks are short
    begun = 0 if stream.finished else stream.row // config.chunks.base
    bar = Progress(title, config.epochs, per_epoch, training.epoch, begun, progress)
    with bar, runs.Keeper(run, training.state_dict, config.checkpoint_seconds) as keeper:
        if note:
            bar.say(note)
        stopped = False
        while training.epoch < config.epochs and not stopped:
            epoch, began = training.epoch, time.monotonic()
            training.network.train()
            while True:
                first = stream.finished or stream.row == 0
                with SavedTensors() if first else nullcontext() as kept:
                    parts = training.step()
                if kept is not None:
                    training.memory_mib = step_mib(kept, training.network, [training.optimizer])
                bar.step(perplexity=parts["loss"].exp())
                stopped = config.max_steps is not None and training.steps >= config.max_steps
                if stopped or stream.finished:
                    break
                keeper.after_step()
            was_averaging = training.averaged is not None
            record = training.finish_epoch()
            run.append(runs.METRICS, record)
            seconds = {"epoch": epoch, "seconds": time.monotonic() - began}
            run.append(
                runs.TIMINGS, {**seconds, "measured_peak_memory_mib": measured_peak_mib(device)}
            )
            bar.epoch(
                epoch,
                {"perplexity": record["train_perplexity"], "valid": record["valid_perplexity"]},
            )
            if training.averaged is not None and not was_averaging:
                bar.say(
                    f"{title}: averaged SGD from epoch {epoch + 2} on: the validation loss has stopped falling"
                )
            keeper.after_step()
        keeper.save()
    results = _finish(training, run, corpus)
    if config.random_cells:
        results["random_cells"] = train_random_cells(
            config,
            run,
            lambda own, folder: start_text_training(own, folder, corpus, device),
            lambda own, child, title: train_text(own, child, corpus, device, progress, title),
            ("test_perplexity", "test_perplexities"),
        )
        runs.write_json(run.path / runs.RESULTS, results)
    run.set_status("finished")
    return results


def _finish(training: TextTraining, run: runs.Run, corpus: Corpus) -> dict[str, Any]:
    network, config = training.network, training.config
    network.load_state_dict(training.best["weights"])
    network.eval()
    test = evaluate_text(network, training.test)
    results = {
        "test_perplexity": test["perplexity"],
        "test_loss": test["loss"],
        "valid_perplexity": perplexity(training.best["loss"]),
        "valid_loss": training.best["loss"],
        "best_epoch": training.best["epoch"],
        "averaged": training.averaged is not None,
        "num_test_tokens": training.test.rows * config.test_batch_size,
        "num_params": sum(p.numel() for p in network.parameters()),
        "genotype": config.genotype.to_text(),
        "epochs": config.epochs,
        "data": {
            "name": corpus.name,
            "level": corpus.vocabulary.level,
            "vocabulary": len(corpus.vocabulary),
        },
    }
    run.save_tensors(runs.WEIGHTS, dict(network.state_dict()), {"format": "gradnas-weights"})
    runs.write_json(run.path / runs.RESULTS, results)
    return results


def load_trained_text(
    run: runs.Run, config: TextTrainConfig
) -> tuple[RecurrentNetwork, Vocabulary]:
    """The trained network of a finished run, in eval mode, on the CPU, and its vocabulary.

    Raises:
        ValueError: no weights yet, or weights of another network.
    """
    if not (run.path / runs.WEIGHTS).exists():
        raise ValueError(
            f"{run.path} holds no trained weights yet; finish it with: gradnas resume {run.path}"
        )
    path = run.path / VOCABULARY
    vocabulary = Vocabulary.from_json(read_object(path), str(path))
    network = config.space.network(config.genotype, len(vocabulary))
    try:
        network.load_state_dict(run.load_tensors(runs.WEIGHTS))
    except RuntimeError as error:
        raise ValueError(
            f"{run.path / runs.WEIGHTS} does not fit its configuration: {error}"
        ) from error
    return network.eval(), vocabulary


def start_text_training(
    config: TextTrainConfig, path: str | Path, corpus: Corpus, device: torch.device
) -> runs.Run:
    """Make the run folder of a training on text: configuration, environment, genotype, picture,
    vocabulary.

    Raises:
        ValueError: a text that is too short for the batch (says how long it must be); a folder that
            holds a run.
    """
    columns = {
        "train": config.batch_size,
        "valid": config.eval_batch_size,
        "test": config.test_batch_size,
    }
    for name, number in columns.items():
        TextStream(corpus.split(name), number, name=name)
    run = runs.Run.create(path, to_json(config), config.seed, device)
    genotype = config.genotype
    genotype.save(run.path / runs.GENOTYPE)
    cells.picture(genotype, run.path / runs.PICTURE)
    runs.write_json(run.path / VOCABULARY, corpus.vocabulary.to_json())
    return run
