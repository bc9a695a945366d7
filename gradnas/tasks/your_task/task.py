"""`Task`: a model, data and a loss of one's own, and what is measured."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.modules.call import Call
from gradnas.search.evaluating import Evaluating
from gradnas.search.forms import takes_network
from gradnas.search.sharing import share_examples
from gradnas.spaces.module_choices import choices_in
from gradnas.tasks.division import Division
from gradnas.tasks.measure import Measure
from gradnas.tasks.your_task.counting import Path, path_of_examples
from gradnas.tasks.your_task.measures import LOSS, Score, scores_of
from gradnas.tasks.your_task.sources import Source, source_of


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """A task of one's own: what is searched, on what data, and what counts.

    A batch is what your data give: a tuple `(inputs ..., target)`, a dictionary, anything with
    tensors in it. Functions that say by the names of their parameters that they take `(net, batch)`
    are given the network, to call it as they like; all others `(outputs, target)`, where the
    outputs are those of `net(inputs ...)` and the target is the last entry of the batch.

    Args:
        model: makes the module with its `gradnas.Choice`s, freshly initialised; without arguments.
        train, valid, test: tensors of one length in a tuple or dictionary, a data set with a length
            and an index, a loader, or a function that makes one of these. Of data sets the order is
            gradnas's own, and a run is resumed to the bit. Without `valid` the training data of a
            search are halved by its seed: one half for the weights, one for the alphas (a loader
            cannot be halved). The test data are read once, after the training.
        loss: of `(outputs, target)`, or of `(net, batch)`; a scalar tensor, a mean over the batch.
            Where the network is in eval mode (`net.training` is False) it may be None, if there are
            measures.
        measures: name -> function of `(outputs, target)` or `(net, batch)` that gives a mean over
            the batch, a number; or object with `reset()`, `update(outputs, target)` and `compute()`
            that sees the batches one after the other. Means count by the examples in a batch. The
            first measure decides; higher is better, unless `gradnas.lower(...)` is around it.
            Without measures the loss decides.
        example: what the model is called with, to count costs and to export: a tensor, a tuple or a
            `gradnas.Call`, of one example. By default the first one of the training data.
        collate: from a list of examples of a data set to a batch.
        size: the number of examples in a batch, for means; by default what has as many entries in
            batches of two and of three of the training data, else the length of the first tensor.
        optimizer: `params -> torch.optim.Optimizer` for the weights, in search and training; by
            default SGD with a cosine.
        schedule: `(optimizer, steps) -> scheduler` of torch for it, which takes a step after every
            batch; `steps` are those of the whole run.
        trainer: `(network, epochs) -> None`, a final training of your own in place of ours: the
            network is to be trained in place, on its device. It is not resumed in its middle.

    Raises:
        ValueError: an argument that is none of these.
    """

    model: Callable[[], nn.Module]
    train: Any
    loss: Callable[[Any, Any], Tensor]
    valid: Any = None
    test: Any = None
    measures: Mapping[str, Any] = field(default_factory=dict)
    example: Any = None
    collate: Callable[[list[Any]], Any] | None = None
    size: Callable[[Any], int] | None = None
    optimizer: Callable[[list[nn.Parameter]], torch.optim.Optimizer] | None = None
    schedule: Callable[[torch.optim.Optimizer, int], Any] | None = None
    trainer: Callable[[nn.Module, int], None] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.model, nn.Module):
            name = type(self.model).__name__
            raise ValueError(
                f"model must be a function that makes a fresh one, such as the class {name}, or "
                f"lambda: {name}(...): a training begins with new weights"
            )
        for name in ("model", "loss"):
            if not callable(getattr(self, name)):
                raise ValueError(f"{name} must be a function, not {getattr(self, name)!r}")
        for name in ("collate", "size", "optimizer", "schedule", "trainer"):
            given = getattr(self, name)
            if given is not None and not callable(given):
                raise ValueError(f"{name} must be a function, not {given!r}")
        if self.train is None:
            raise ValueError("a task needs train=: the data to train on")
        if self.schedule is not None and self.optimizer is None:
            raise ValueError("schedule= is for an optimiser of your own: give optimizer= as well")
        _ = self.scores  # refuses what is no measure

    # -- what is called, and how --

    @cached_property
    def loss_takes_network(self) -> bool:
        """Whether the loss is of `(net, batch)`."""
        return takes_network(self.loss)

    @cached_property
    def evaluating(self) -> Evaluating:
        """Calls of the loss, or of the network, where nothing learns."""
        return Evaluating()

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        """The measures, the deciding one first."""
        return scores_of(self.measures)

    @property
    def all_measures(self) -> tuple[Measure, ...]:
        """Names and directions: those given, and the loss where there are none."""
        return tuple(score.measure for score in self.scores) or (LOSS,)

    # -- data --

    @cached_property
    def path_of_examples(self) -> Path | None:
        """What in a batch has an entry for each example, where that is not its first tensor."""
        return path_of_examples(self.train_data.known())

    @cached_property
    def train_data(self) -> Source:
        """What the weights learn from."""
        return source_of(self.train, "train", self.collate)

    @cached_property
    def valid_data(self) -> Source | None:
        """What the alphas learn from; None where it is a part of the training data."""
        if self.valid is None:
            return None
        return source_of(self.valid, "valid", self.collate)

    @cached_property
    def validates_on_training(self) -> bool:
        """Whether validation examples are training examples, as far as that shows."""
        return share_examples(self.train, self.valid)

    @cached_property
    def test_data(self) -> Source | None:
        """What a trained network is tested on."""
        return None if self.test is None else source_of(self.test, "test", self.collate)

    def divided(self, division: Division) -> tuple[Source, Source]:
        """The data for the weights of a search, and those for its alphas.

        Raises:
            ValueError: a loader alone, which cannot be halved.
        """
        if self.valid_data is not None:
            return self.train_data, self.valid_data
        return self.train_data.halves(division.train_fraction, division.seed)

    def measured_on_the_rest(self, division: Division) -> Task:
        """The task of a training that is measured on the data for the alphas of a search."""
        for_weights, for_alphas = self.divided(division)
        return replace(self, train=for_weights, valid=None, test=for_alphas)

    # -- the model --

    def new_model(self) -> nn.Module:
        """The module, freshly made.

        Raises:
            ValueError: it is no module, or holds no choice.
        """
        model = self.model()
        if not isinstance(model, nn.Module):
            raise ValueError(
                f"the model of the task must be an nn.Module, and model() gives {model!r}"
            )
        choices_in(model)
        return model

    def parts(self, batch: Any) -> tuple[Call, Any]:
        """The inputs and the target of a batch `(inputs ..., target)`.

        Raises:
            ValueError: a batch of another form.
        """
        if not isinstance(batch, (tuple, list)) or len(batch) < 2:
            raise ValueError(
                f"a batch is a {type(batch).__name__}, and not (inputs ..., target): write loss "
                "and "
                "measures as functions of (net, batch)"
            )
        *inputs, target = batch
        return Call(*inputs), target
