"""A search on text.

Two streams are read, each with its own position and its own hidden state: the training text for the
weights, the validation text for the alphas. A hidden state moves on once for each chunk, by the
weights that the search really has: neither the unrolled weights of an architecture step nor its
perturbed ones leave a trace in it.

Legend: T time steps, B batch (streams of text), H hidden units.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.data import Chunk, Corpus, TextStream
from gradnas.objectives import Objective, TokenLikelihood
from gradnas.randomness import generator_for, seed_for
from gradnas.runs import State
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.comparing import Judge
from gradnas.search.feed import Sizes
from gradnas.search.result import SearchResult
from gradnas.search.search import Search
from gradnas.spaces.recurrent.recurrent_network import LanguageLoss
from gradnas.tasks.evaluation import Means
from gradnas.tasks.measure import Measure
from gradnas.tasks.search import SearchTask
from gradnas.tasks.text.judging import TextJudge
from gradnas.tasks.text.reading import (
    CarriedStream,
    TextPlace,
    evaluate_text,
    joined_hidden,
    noise_seed,
    own_columns,
    shared_stream,
    unknown_share,
    with_perplexity,
)
from gradnas.tasks.text.settings import TextSearchConfig

# Streams of random numbers.
INIT = 31
CHUNKS = 32
NOISE = 33


@dataclass
class _LastPass:
    """What the last pass over a chunk has left: parts of its loss, and a hidden state."""

    parts: dict[str, Tensor]
    hidden_BH: Tensor | None


class TextSearch(SearchTask[TextSearchConfig, Chunk]):
    """A search of a recurrent cell for language models."""

    place: TextPlace
    result_keys: tuple[str, ...] = ("valid_perplexity", "valid_loss", "valid_unknown")
    shown: Mapping[str, str] = {
        "train_perplexity": "perplexity",
        "valid_perplexity": "valid",
        "entropy_recurrent": "entropy",
    }

    def __init__(self, config: TextSearchConfig, corpus: Corpus, device: torch.device) -> None:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.manual_seed(seed_for(config.seed, INIT))
            supernet = config.space.supernet(vocabulary=len(corpus.vocabulary))
        search = Search(
            supernet,
            relaxation=config.relaxation,
            gradient=config.gradient,
            terms=config.terms,
            stabilizers=config.stabilizers,
            selection=config.selection,
            weights=config.weights,
            alphas=config.alphas,
            epochs=config.epochs,
            warmup_epochs=config.warmup_epochs,
            seed=config.seed,
            device=device,
        )
        super().__init__(config, search)
        columns = config.batch_size
        self.train = CarriedStream(shared_stream(corpus.train, columns, device, "train"))
        self.valid = CarriedStream(shared_stream(corpus.valid, columns, device, "valid"))
        self.held_out = TextStream(corpus.valid, columns, device, "valid")
        self.held_out_unknown = unknown_share(self.held_out, corpus.vocabulary)
        self.place = TextPlace(self.train.stream, config.chunks.base)
        torch.manual_seed(noise_seed(config.seed, NOISE))  # dropout

    # -- position --

    def position(self) -> State:
        return {"train": self.train.state_dict(), "valid": self.valid.state_dict()}

    def go_to(self, position: State) -> None:
        self.train.load_state_dict(position["train"])
        self.valid.load_state_dict(position["valid"])

    def redistributed(self, states: Sequence[State]) -> State:
        state = super().redistributed(states)
        for name in ("train", "valid"):
            parts = [own[name] for own in states]
            hidden_BH = joined_hidden(parts, own_columns(self.config.batch_size))
            state[name] = {"stream": parts[0]["stream"], "hidden": hidden_BH}
        return state

    # -- steps --

    def batches(self) -> Iterator[Chunk]:
        stream = self.train.stream
        while True:
            numbers = generator_for(self.config.seed, CHUNKS, self.search.epoch, stream.row)
            yield self.train.next(self.config.chunks.length(numbers))
            if stream.finished:
                return

    def step(self, batch: Chunk) -> StepReport:
        """One step of alphas and weights on a chunk of the training text.

        The alphas read the next one of the validation text.
        """
        search = self.search
        config = self.config
        read = _LastPass({}, None)
        train_loss = self._loss(batch, self.train, config.objective, read)
        valid_loss: NetLoss | None = None
        valid: Chunk | None = None
        valid_read = _LastPass({}, None)
        after_now: Tensor | None = None
        if not search.schedule.warming_up:
            valid = self.valid.next(config.chunks.base)
            valid_loss = self._loss(valid, self.valid, TokenLikelihood(), valid_read)
            # A first-order gradient reads the chunk by the weights of now; any other has a pass of
            # its own for that.
            if config.gradient.needs_inner_step:
                search.probe(valid_loss)
                after_now = valid_read.hidden_BH
        sizes = (batch.targets_TB.shape[1], None if valid is None else valid.targets_TB.shape[1])
        report = self._step_at_rate_of(batch, train_loss, valid_loss, sizes)
        self.train.hidden_BH = read.hidden_BH  # of the last pass: the weight step's
        self.train_means.add(read.parts, batch.targets_TB.numel())
        if valid is not None:
            self.valid.hidden_BH = valid_read.hidden_BH if after_now is None else after_now
            self.valid_means.add(valid_read.parts, valid.targets_TB.numel())
        return report

    def _step_at_rate_of(
        self, chunk: Chunk, train_loss: NetLoss, valid_loss: NetLoss | None, sizes: Sizes
    ) -> StepReport:
        """A step whose learning rate is that of the epoch times length / base of its chunk.

        It is set before the step, so that the inner step of an unrolled gradient has it too.
        """
        groups = self.search.weight_optimizer.param_groups
        rates = [group["lr"] for group in groups]
        for group in groups:
            group["lr"] *= len(chunk.inputs_TB) / self.config.chunks.base
        report = self.search.step(train_loss, valid_loss, sizes)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate
        return report

    def _loss(
        self, chunk: Chunk, carried: CarriedStream, objective: Objective, read: _LastPass
    ) -> NetLoss:
        hidden_BH = carried.hidden_BH  # of now: every pass of the step begins with it

        def loss(net: BoundNet) -> Tensor:
            outputs = net(chunk.inputs_TB, hidden_BH, chunk.targets_TB)
            total, read.parts = objective(outputs, chunk.targets_TB)
            read.hidden_BH = outputs.hidden_BH.detach()
            return total

        return loss

    def bar(self, report: StepReport) -> dict[str, Tensor]:
        return {"perplexity": report.train_loss.exp()}

    # -- epochs --

    def measured(self, means: Means) -> dict[str, float]:
        return with_perplexity(means)

    def evaluate(
        self, result: SearchResult, epoch: int, batches: int | None = None
    ) -> dict[str, float]:
        """Loss and perplexity of the mixture on the validation text.

        With the share of its unknown words. The derived cell has no BatchNorm, so with these
        weights it says nothing about itself.
        """
        del result, epoch, batches
        supernet = self.search.supernet
        draw = self.search.evaluation_draw()

        def mixture(
            tokens_TB: Tensor, hidden_BH: Tensor | None, targets_TB: Tensor
        ) -> LanguageLoss:
            return supernet(tokens_TB, hidden_BH, targets_TB, draw=draw)

        supernet.eval()
        found = evaluate_text(mixture, self.held_out, self.config.chunks.base)
        supernet.train()
        found["unknown"] = self.held_out_unknown
        return {f"valid_{name}": value for name, value in found.items()}

    def worth(self, net: BoundNet, by_loss: bool) -> float:
        """By the likelihood, which perplexity is a function of."""
        del by_loss

        def run(tokens_TB: Tensor, hidden_BH: Tensor | None, targets_TB: Tensor) -> LanguageLoss:
            return net(tokens_TB, hidden_BH, targets_TB)

        return -evaluate_text(run, self.held_out, self.config.chunks.base)["loss"]

    def judge(self, result: SearchResult, measure: Measure) -> Judge | None:
        del result, measure
        base = self.config.chunks.base
        return TextJudge(self.search, self.held_out, base, base * self.config.batch_size)
