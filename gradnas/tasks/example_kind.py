"""A kind of data whose examples are `Examples`: what most kinds say in the same way.

A new kind is one file beside this one and one line in `gradnas.tasks.KINDS`. It holds

- the data as a frozen dataclass with a `source` and `load()`, which gives `ExampleData`;
- a space (`gradnas.spaces.module_space.ModuleSpace`: a module with choices in it);
- the two configurations (`ExampleSearchSettings`, `ExampleTrainSettings`);
- what a network is called with and its losses (`Calls`), for a `BatchedSearch` and a
  `BatchedTraining`;
- an `ExampleKind` that names all these.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import torch
from torch import nn

from gradnas import distributed, runs
from gradnas.architectures.choices import Choices
from gradnas.config import Json, JsonObject, read_object
from gradnas.data.fingerprint import Fingerprint, digest, digest_of
from gradnas.data.summary import DataSummary, Fact
from gradnas.export.programs import write_program
from gradnas.export.source import SourceOf
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.randomness import seed_for
from gradnas.runs import Record
from gradnas.search.search import Search
from gradnas.spaces.module_space import ModuleSpace
from gradnas.tasks.base import DataSettings, SearchSettings, TrainSettings
from gradnas.tasks.batched import BatchedSearch, BatchedTraining
from gradnas.tasks.examples import ExampleBatches, Examples
from gradnas.tasks.kind import Kind
from gradnas.tasks.measure import Measure
from gradnas.tasks.sentences import Sentences
from gradnas.tasks.trained_part import unsaid, unspoken

# Streams of random numbers.
TRAIN_ORDER = 61
VALID_ORDER = 62
NOISE = 63
MOST_HASHED = 100_000  # examples of a split that a fingerprint reads
MOST_NUMBERS = 10**9  # of one example
EXPORTED_EXAMPLES = 2  # torch's exporter takes a 1 for a constant


@dataclass(frozen=True)
class ExampleData:
    """Examples to train on and to test with.

    Args:
        task: what the data decide of a network (features, classes), named as its space takes them.
    """

    train: Examples
    test: Examples
    task: Mapping[str, Any] = field(default_factory=dict)


class ExampleSource(DataSettings, Protocol):
    """Where examples are."""

    def load(self) -> ExampleData: ...


class ExampleSearchSettings(SearchSettings):
    """The configuration of a search on examples: a frozen dataclass with these fields."""

    if TYPE_CHECKING:

        @property
        def space(self) -> ModuleSpace: ...
        @property
        def data(self) -> ExampleSource: ...
        @property
        def weights(self) -> WeightOptimizer: ...
        @property
        def alphas(self) -> AlphaOptimizer | None: ...
        @property
        def warmup_epochs(self) -> int: ...
        @property
        def batch_size(self) -> int: ...
        @property
        def train_fraction(self) -> float: ...


class ExampleTrainSettings(TrainSettings):
    """The configuration of a training on examples: a frozen dataclass with these fields."""

    if TYPE_CHECKING:

        @property
        def space(self) -> ModuleSpace: ...
        @property
        def data(self) -> ExampleSource: ...
        @property
        def genotype(self) -> Choices: ...
        @property
        def lr(self) -> float: ...
        @property
        def momentum(self) -> float: ...
        @property
        def weight_decay(self) -> float: ...
        @property
        def clip_norm(self) -> float | None: ...
        @property
        def batch_size(self) -> int: ...


S = TypeVar("S", bound=ExampleSearchSettings)
T = TypeVar("T", bound=ExampleTrainSettings)


class ExampleSearch(BatchedSearch[S, Any]):
    """A search on examples, of which `train_fraction` are for the weights, the rest for the alphas.

    Its batches are whatever the examples are.
    """

    def __init__(self, config: S, data: ExampleData, device: torch.device, measure: str) -> None:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(config.seed)
            supernet = config.space.supernet(seed=config.seed, **data.task)
        for_weights, for_alphas = data.train.halves(config.train_fraction, config.seed)
        train = _shuffled(for_weights, config, TRAIN_ORDER, device)
        valid = _shuffled(for_alphas, config, VALID_ORDER, device)
        search = Search(
            supernet,
            relaxation=config.relaxation,
            gradient=config.gradient,
            weights=config.weights,
            alphas=config.alphas,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            steps_per_epoch=len(train),
            seed=config.seed,
            device=device,
        )
        held_out = for_alphas.batches(config.batch_size, shuffle=False, device=device)
        super().__init__(config, search, train, valid, held_out, measure)
        torch.manual_seed(seed_for(config.seed, NOISE, distributed.rank()))  # dropout, for example


class ExampleTraining(BatchedTraining[T, Any]):
    """A training on examples with SGD and a cosine."""

    def __init__(
        self,
        config: T,
        data: ExampleData,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> None:
        if network is None:
            with torch.random.fork_rng(devices=[]), torch.device("cpu"):
                torch.manual_seed(config.seed)
                network = config.space.network(config.genotype, **data.task)
        network = network.to(device)
        distributed.copy_from_main([*network.parameters(), *network.buffers()])
        optimizer = torch.optim.SGD(
            network.parameters(),
            lr=config.lr,
            momentum=config.momentum,
            weight_decay=config.weight_decay,
        )

        def test() -> ExampleBatches:
            return data.test.batches(config.batch_size, shuffle=False, device=device)

        train = _shuffled(data.train, config, TRAIN_ORDER, device)
        super().__init__(config, network, optimizer, device, train, None, test)
        self.data = data
        torch.manual_seed(seed_for(config.seed, NOISE, distributed.rank()))  # dropout, for example

    def results(self) -> Record:
        return {
            **super().results(),
            "num_test_examples": len(self.data.test),
            "data": dict(self.data.task),
        }


def _shuffled(
    examples: Examples,
    config: ExampleSearchSettings | ExampleTrainSettings,
    stream: int,
    device: torch.device,
) -> ExampleBatches:
    return examples.batches(
        config.batch_size,
        shuffle=True,
        seed=seed_for(config.seed, stream),
        device=device,
        rank=distributed.rank(),
        world=distributed.world(),
    )


def _contents(examples: Examples) -> str:
    """A hash of tensors: of all their rows, or of some where there are very many."""
    step = max(1, len(examples) // MOST_HASHED)
    batch = examples.batch(examples.rows[::step])
    tensors = batch.values() if isinstance(batch, Mapping) else batch
    return digest(digest_of(tensor).encode() for tensor in tensors)


def task_of(run: runs.Run) -> JsonObject:
    """What the data decided of the network of a finished training; ValueError if it is not told."""
    path = run.path / runs.RESULTS
    task = read_object(path).get("data")
    if not isinstance(task, dict):
        raise ValueError(f"{path} does not say what the data decided of the network ('data')")
    return task


def inputs_of(run: runs.Run) -> list[tuple[list[int], torch.dtype]]:
    """Shape of one example and type of each input of a finished training.

    Raises:
        ValueError: the results do not tell them.
    """
    path = run.path / runs.RESULTS
    entries = read_object(path).get("inputs")
    if not isinstance(entries, list) or not entries:
        raise ValueError(f"{path} does not say what the network takes ('inputs')")
    inputs = []
    for number, entry in enumerate(entries):
        known = entry if isinstance(entry, dict) else {}
        shape = known.get("shape")
        name = known.get("dtype")
        dtype = getattr(torch, name, None) if isinstance(name, str) else None
        are_sizes = isinstance(shape, list) and all(type(size) is int for size in shape)
        if not are_sizes or min(shape, default=1) < 1 or math.prod(shape) > MOST_NUMBERS:
            raise ValueError(f"{path}: inputs[{number}].shape is no shape of an example: {shape!r}")
        if not isinstance(dtype, torch.dtype):
            raise ValueError(f"{path}: inputs[{number}].dtype is no type of a tensor: {name!r}")
        inputs.append((shape, dtype))
    return inputs


class ExampleSentences(Sentences[S]):
    """What runs on examples say in the terminal.

    Args:
        name: what the examples are called.
    """

    def __init__(self, measure: Measure, name: str) -> None:
        super().__init__(measure)
        self.name = name

    def tested_on(self, results: Record) -> str:
        return f"{results['num_test_examples']} held-out {self.name}"


class ExampleKind(Kind[S, T, ExampleData]):
    """A kind of data whose examples are `Examples`.

    Attributes:
        searching, training: the classes of its tasks.
    """

    searching: type[ExampleSearch[S]]
    training: type[ExampleTraining[T]]

    @property
    def sentences(self) -> ExampleSentences[S]:
        return ExampleSentences(self.measure, self.name)

    def read(self, data: ExampleData) -> DataSummary:
        train = len(data.train)
        test = len(data.test)
        splits = f"{train:,} training and {test:,} test {self.name}"
        facts = [Fact("splits", "Splits", splits, {"train": train, "test": test})]
        if data.task:
            task = ", ".join(f"{name} {value}" for name, value in data.task.items())
            facts.append(Fact("task", "Decided by the data", task, dict(data.task)))
        return DataSummary(self.name, facts)

    def fingerprint(self, data: ExampleData) -> Fingerprint:
        entries: dict[str, Json] = {}
        for split, examples in (("training", data.train), ("test", data.test)):
            entries[f"{split} {self.name}"] = len(examples)
            if examples.is_tensors:  # other examples may be made anew, with noise
                entries[f"contents of the {split} {self.name}"] = _contents(examples)
        for name, value in data.task.items():
            entries[name] = value
        return Fingerprint(entries)

    def search_task(self, config: S, data: ExampleData, device: torch.device) -> ExampleSearch[S]:
        return self.searching(config, data, device, self.measure.key)

    def train_task(
        self,
        config: T,
        data: ExampleData,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> ExampleTraining[T]:
        return self.training(config, data, device, network)

    def untrained(self, run: runs.Run, config: T) -> nn.Module:
        return config.space.network(config.genotype, **task_of(run))

    def evaluate(
        self,
        run: runs.Run,
        config: T,
        source: str | None,
        device: torch.device,
        say: Callable[[DataSummary], None] = unsaid,
    ) -> str:
        network = self.load_trained(run, config)
        data = replace(config.data, source=source or config.data.source).load()
        say(self.read(data))
        task = self.train_task(config, data, device, network)
        test = task.evaluated(task.test())
        key = self.measure.key
        reached = self.measure.text(test[key])
        number = len(data.test)
        return f"test {key} {reached}  loss {test['loss']:.4f}  on {number} {self.name}"

    def export(
        self,
        run: runs.Run,
        config: T,
        path: Path,
        source: SourceOf,
        say: Callable[[str], None] = unspoken,
    ) -> list[Path]:
        del source  # that of the published families alone
        network = self.load_trained(run, config).float()  # and not `to`, which takes complex apart
        if path.suffix == ".py":
            raise ValueError(
                f"a {type(network).__name__} cannot be written as source: keep its class, and "
                "export to .pt2 or .onnx"
            )
        inputs = []
        goes_in = []
        for shape, dtype in inputs_of(run):
            inputs.append(torch.zeros((EXPORTED_EXAMPLES, *shape), dtype=dtype))
            name = str(dtype).removeprefix("torch.")
            goes_in.append(f"({', '.join(['B', *map(str, shape)])}) {name}")
        say(f"in: {', '.join(goes_in)}, as the data give it")
        return write_program(
            network,
            path,
            inputs=inputs,
            batch_axes=[0] * len(inputs),
            input_names=[f"input{number}" for number in range(len(inputs))],
            output_names=["output"],
            architecture=config.genotype,
            facts={"data": task_of(run)},
        )
