"""A training of a language model with a derived recurrent cell.

SGD first; when the validation loss stops falling, averaged SGD: the same steps, judged and kept by
the mean of the weights since then. The weights that are kept are those of the best validation loss;
the test text is read once, with them, at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.data import Chunk, Corpus, TextStream
from gradnas.randomness import generator_for, seed_for
from gradnas.runs import NonFiniteError, Record, State
from gradnas.spaces import RecurrentNetwork
from gradnas.tasks.evaluation import Means
from gradnas.tasks.text.reading import (
    CarriedStream,
    TextPlace,
    evaluate_text,
    joined_hidden,
    noise_seed,
    own_columns,
    perplexity,
    shared_stream,
    unknown_share,
    with_perplexity,
)
from gradnas.tasks.text.settings import TextTrainConfig
from gradnas.tasks.training import TrainTask, update

# Streams of random numbers.
INIT = 41
CHUNKS = 42
NOISE = 43


def build_text_network(config: TextTrainConfig, vocabulary: int) -> RecurrentNetwork:
    """The freshly initialised network of a training run.

    It is a function of the configuration and the vocabulary's size.
    """
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.manual_seed(seed_for(config.seed, INIT))
        return config.space.network(config.genotype, vocabulary)


class AveragedWeights:
    """The mean of a network's weights over all steps since it began.

    Averaged SGD: Polyak and Juditsky, 1992.
    """

    def __init__(self, network: nn.Module) -> None:
        self.network = network
        self.count = 0
        self.mean = {name: p.detach().clone() for name, p in network.named_parameters()}

    @torch.no_grad()
    def add(self) -> None:
        """Count the weights of now."""
        self.count += 1
        for name, p in self.network.named_parameters():
            self.mean[name].lerp_(p, 1.0 / self.count)

    def state_dict(self) -> State:
        """Tensors and plain values."""
        return {"count": self.count, "mean": dict(self.mean)}

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self.count = state["count"]
        for name, tensor in state["mean"].items():
            self.mean[name].copy_(tensor)


class TextTraining(TrainTask[TextTrainConfig, Chunk]):
    """A training of a language model.

    Args:
        network: another language model than that of the configuration, with the same calls.
    """

    place: TextPlace

    def __init__(
        self,
        config: TextTrainConfig,
        corpus: Corpus,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> None:
        if network is None:
            network = build_text_network(config, len(corpus.vocabulary))
        network = network.to(device)
        distributed.copy_from_main([*network.parameters(), *network.buffers()])
        optimizer = torch.optim.SGD(
            network.parameters(), lr=config.lr, weight_decay=config.weight_decay
        )
        super().__init__(config, network, optimizer, device)
        self.corpus = corpus
        train = shared_stream(corpus.train, config.batch_size, device, "train")
        self.train = CarriedStream(train)
        self.valid = TextStream(corpus.valid, config.eval_batch_size, device, "valid")
        self.test = TextStream(corpus.test, config.test_batch_size, device, "test")
        self.place = TextPlace(self.train.stream, config.chunks.base)
        self.steps = 0
        self.averaged: AveragedWeights | None = None  # from the trigger on
        self.valid_losses: list[float] = []
        self.best: State = {"loss": None, "epoch": None, "weights": {}}
        torch.manual_seed(noise_seed(config.seed, NOISE))  # dropout

    # -- position --

    def position(self) -> State:
        return {
            "train": self.train.state_dict(),
            "averaged": None if self.averaged is None else self.averaged.state_dict(),
            "valid_losses": list(self.valid_losses),
            "best": dict(self.best),
            "epoch": self.epoch,
            "steps": self.steps,
        }

    def go_to(self, position: State) -> None:
        self.train.load_state_dict(position["train"])
        self.epoch = position["epoch"]
        self.steps = position["steps"]
        self.averaged = None
        if position["averaged"] is not None:
            self.averaged = AveragedWeights(self.network)
            self.averaged.load_state_dict(position["averaged"])
        self.valid_losses = list(position["valid_losses"])
        self.best = dict(position["best"])

    def redistributed(self, states: Sequence[State]) -> State:
        state = super().redistributed(states)
        parts = [own["train"] for own in states]
        hidden_BH = joined_hidden(parts, own_columns(self.config.batch_size))
        state["train"] = {"stream": parts[0]["stream"], "hidden": hidden_BH}
        return state

    @property
    def num_steps(self) -> int:
        return self.steps

    # -- steps --

    def batches(self) -> Iterator[Chunk]:
        stream = self.train.stream
        while True:
            row = stream.row % stream.rows
            numbers = generator_for(self.config.seed, CHUNKS, self.epoch, row)
            yield self.train.next(self.config.chunks.length(numbers))
            if stream.finished:
                return

    def step(self, batch: Chunk) -> dict[str, Tensor]:
        config = self.config
        outputs = self.network(batch.inputs_TB, self.train.hidden_BH, batch.targets_TB)
        loss, parts = config.objective(outputs, batch.targets_TB)
        loss.backward()
        for group in self.optimizer.param_groups:
            group["lr"] = config.lr * len(batch.inputs_TB) / config.chunks.base
        update(self, loss, config.clip_norm, batch.targets_TB.shape[1])
        if self.averaged is not None:
            self.averaged.add()
        self.train.hidden_BH = outputs.hidden_BH.detach()
        self.means.add(parts, batch.targets_TB.numel())
        self.steps += 1
        return parts

    def not_finite(self) -> NonFiniteError:
        return NonFiniteError(
            f"epoch {self.epoch}, row {self.train.stream.row}: the loss or the gradient is NaN or "
            "infinite; the update was not made. Try a smaller learning rate"
        )

    def bar(self, parts: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {"perplexity": parts["loss"].exp()}

    # -- epochs --

    @contextmanager
    def judged_weights(self) -> Iterator[nn.Module]:
        """The network in eval mode with the weights that are judged and kept.

        After the switch these are the averaged ones.
        """
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
        """The non-monotone trigger, before `loss` is written down.

        Source: arXiv 1708.02182, algorithm 1.
        """
        patience = self.config.patience
        if patience is None or len(self.valid_losses) <= patience:
            return False
        return loss > min(self.valid_losses[:-patience])

    def finish_epoch(self) -> Record:
        """The metrics of the epoch that ends; from the next one on perhaps averaged SGD."""
        train = with_perplexity(self.means)
        with self.judged_weights() as network:
            valid = evaluate_text(network, self.valid)
            weights = {}
            for name, tensor in network.state_dict().items():
                weights[name] = tensor.detach().clone()
        if not math.isfinite(valid["loss"]):
            raise NonFiniteError(
                f"epoch {self.epoch}: the validation loss is NaN or infinite. Try a smaller "
                "learning rate"
            )
        if self.best["loss"] is None or valid["loss"] < self.best["loss"]:
            self.best = {"loss": valid["loss"], "epoch": self.epoch, "weights": weights}
        record = {
            "epoch": self.epoch,
            "steps": self.steps,
            "lr": self.config.lr,
            **{f"train_{name}": value for name, value in train.items()},
            **{f"valid_{name}": value for name, value in valid.items()},
            "valid_unknown": unknown_share(self.valid, self.corpus.vocabulary),
            "averaged": self.averaged is not None,
            "peak_memory_mib": self.memory_mib,
        }
        if self.averaged is None and self._has_stopped_falling(valid["loss"]):
            self.averaged = AveragedWeights(self.network)
        self.valid_losses.append(valid["loss"])
        self.epoch += 1
        self.means = Means()
        return record

    def shown(self, record: Record) -> dict[str, float]:
        return {"perplexity": record["train_perplexity"], "valid": record["valid_perplexity"]}

    def remarks(self, record: Record) -> list[str]:
        has_switched = self.averaged is not None and not record["averaged"]
        if not has_switched:
            return []
        coming = record["epoch"] + 2  # epochs count from 1 in words
        return [f"averaged SGD from epoch {coming} on: the validation loss has stopped falling"]

    def results(self) -> Record:
        config = self.config
        vocabulary = self.corpus.vocabulary
        self.network.load_state_dict(self.best["weights"])
        self.network.eval()
        test = evaluate_text(self.network, self.test)
        return {
            "test_perplexity": test["perplexity"],
            "test_loss": test["loss"],
            "test_unknown": unknown_share(self.test, vocabulary),
            "valid_perplexity": perplexity(self.best["loss"]),
            "valid_loss": self.best["loss"],
            "valid_unknown": unknown_share(self.valid, vocabulary),
            "best_epoch": self.best["epoch"],
            "averaged": self.averaged is not None,
            "num_test_tokens": self.test.rows * config.test_batch_size,
            "num_params": sum(p.numel() for p in self.network.parameters()),
            "genotype": config.genotype.to_text(),
            "epochs": config.epochs,
            "data": {
                "name": self.corpus.name,
                "level": vocabulary.level,
                "vocabulary": len(vocabulary),
                "min_count": self.corpus.min_count,
            },
        }
