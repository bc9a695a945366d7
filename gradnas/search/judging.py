"""Architectures measured on batches: derived networks with the weights of the search."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.architectures.base import Architecture
from gradnas.gradients.base import same_randomness
from gradnas.latency.counts import in_eval_mode
from gradnas.modules.inplace import tensors_of
from gradnas.precision import cuda_products
from gradnas.randomness import seed_for, seeded
from gradnas.search.bound_net import BoundNet, PlainNet
from gradnas.search.comparing import Compared, Judge, compare
from gradnas.search.effort import copying_seconds, effort_of
from gradnas.search.evaluating import Evaluating
from gradnas.search.feed import inputs_and_target, length_of, size_of, to_device
from gradnas.search.forms import takes_network
from gradnas.search.reading import own_generators
from gradnas.search.recalibration import norms_to_recalibrate, recalibrate
from gradnas.search.result import SearchResult
from gradnas.search.scoring import ScoreJudge
from gradnas.search.sharing import share_examples
from gradnas.search.slices import FAILURES, measured_by_group
from gradnas.search.verdict import Scores, Verdict, Yardstick
from gradnas.search.verdict_limits import FEWEST_EXAMPLES, wanted_of
from gradnas.spaces.your_module import OpenModule

MOST_BYTES = 256 * 2**20  # of batches that are kept, so that all architectures see the same
MOST_BATCHES = 50  # of a validation loader
RECALIBRATION_BATCHES = 8
CAUTION = 2.0  # kernels of a supernet may be so much quicker than what is counted of them
COUNTING = 2.0  # what a pass takes that is counted, in plain ones
ORDER = 4  # stream of random numbers: in which order loaders are read

Grouped = list[tuple[float, float]]  # (measure, examples) of every group of a batch


class BatchJudge(Judge):
    """A judge over batches that are kept.

    Args:
        decision: the derived architecture.
        train: for BatchNorm's statistics, in the form that `run` takes.
        valid: what is measured on.
        size: batch -> its examples.
        run: calls a network on a batch.
        score: the measure of every group of a batch.
        laid_out: the network in the memory format in which it runs.
        known: what the mixture of now gives on the first held-out batches, where it has just been
            measured: it is not run on these again.
        held_out: whether the weights have not learned from what is measured on.
    """

    def __init__(
        self,
        search: Compared,
        decision: Architecture,
        yardstick: Yardstick,
        train: Iterable[Any],
        valid: Iterable[Any],
        size: Callable[[Any], int],
        run: Callable[[Any, Any], Any],
        score: Callable[[Any, Any], Grouped],
        laid_out: Callable[[nn.Module], nn.Module] = lambda network: network,
        known: Sequence[Any] = (),
        held_out: bool = True,
    ) -> None:
        self.search = search
        self.known = known
        self.held_out = held_out
        self.run = run
        self.size = size
        self.score = score
        self.laid_out = laid_out
        self.yardstick = yardstick
        self.valid = list(kept(valid))
        self.train: Sequence[Any] = []
        with same_randomness(search.passes.params.values()):
            network = search.supernet.derived(decision)
        # Those of the supernet too: another architecture may have some where this one has none.
        has_norms = norms_to_recalibrate(network) or norms_to_recalibrate(search.supernet)
        number = RECALIBRATION_BATCHES if has_norms else 1
        some = list(kept(itertools.islice(train, number)))
        if number > 1:
            self.train = some
        self.train_size = size(some[0]) if some else 0
        self._made = {decision: network}  # of this one no second copy is made
        self._count(network)
        self.sizes = [size(batch) for batch in self.valid]
        self.extra_sizes = [size(batch) for batch in self.train]
        self.extra = sum(self.extra_sizes)

    def by_score(self, drawings: int) -> Judge:
        if not self.valid:
            raise ValueError("there are no held-out examples to score candidates on")

        def run(network: Any, batch: Any) -> Any:
            return self.run(PlainNet(network), batch)

        return ScoreJudge(self.search, drawings, self.valid[0], run, self.laid_out)

    def read_before(self, batches: int) -> int:
        return sum(self.extra_sizes[: self._num_before(batches)])

    def _num_before(self, batches: int) -> int:
        """Batches for BatchNorm; as few as are measured on, where these are fewer than usual."""
        is_short = batches < len(self.sizes) and sum(self.sizes[:batches]) < FEWEST_EXAMPLES
        return max(batches, 2) if is_short else len(self.train)

    def _count(self, network: nn.Module) -> None:
        """Count what measuring a derived network takes, in passes of the mixture."""
        search = self.search
        if not self.valid:
            return
        net = BoundNet(search.supernet, search.evaluation_draw(), None)
        batch = self.valid[0]
        has_mixture = search.relaxation.trains_mixtures
        try:
            with same_randomness(search.passes.params.values()):
                with in_eval_mode(network):
                    own = effort_of(lambda: self.run(PlainNet(network), batch))
                whole = own
                if has_mixture:
                    with in_eval_mode(search.supernet):
                        whole = effort_of(lambda: self.run(net, batch))
        except FAILURES:  # what cannot be counted takes as much
            return
        self.share = min(1.0, CAUTION * own.share_of(whole)) if has_mixture else 1.0
        num_examples = self.size(batch)
        # A module of one's own is copied with all its operations; those of spaces are built anew.
        supernet = search.supernet
        made = supernet.net if isinstance(supernet, OpenModule) else network
        self.copying = num_examples * copying_seconds(made) / whole.seconds
        self.prepared = COUNTING * (1 + has_mixture) * num_examples

    @torch.no_grad()
    def mixture(self, batches: int) -> Scores | None:
        search = self.search
        if not search.relaxation.trains_mixtures:
            return None
        if len(self.known) >= batches:
            return self._scores(_Given(self.known), batches)
        net = BoundNet(search.supernet, search.evaluation_draw(), None)
        with same_randomness(search.passes.params.values()), in_eval_mode(search.supernet):
            return self._scores(net, batches)

    @torch.no_grad()
    def architecture(self, decision: Architecture, batches: int) -> Scores:
        search = self.search
        with same_randomness(search.passes.params.values()):
            network = self._made.pop(decision, None)
            if network is None:
                network = search.supernet.derived(decision)
            network = self.laid_out(network)
            some = self.train[: self._num_before(batches)]
            recalibrate(network, some, lambda net, batch: self.run(PlainNet(net), batch))
            network.eval()
            return self._scores(PlainNet(network), batches)

    def _scores(self, net: Any, batches: int) -> Scores:
        passes = self.search.passes
        values = []
        weights = []
        for batch in self.valid[:batches]:
            with cuda_products(passes.precision), passes.autocast():
                groups = self.score(net, batch)
            values += [value for value, _ in groups]
            weights += [weight for _, weight in groups]
        return self.scores(values, weights)


class _Given:
    """In the place of a network whose outputs are known, call by call."""

    def __init__(self, outputs: Sequence[Any]) -> None:
        self._coming = iter(outputs)

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        del inputs, named
        return next(self._coming)


def judge_of_loaders(
    search: Compared,
    result: SearchResult,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
    measure: Any,
) -> BatchJudge:
    """A judge over the batches of `Search.fit`, by the loss or by a measure."""
    device = search.passes.device
    function: Any = loss
    yardstick = Yardstick()
    if measure is not None:
        function = getattr(measure, "measure", measure)  # of `gradnas.lower`
        name = getattr(function, "__name__", type(function).__name__).lower()
        yardstick = Yardstick(name, higher_is_better=function is measure)
    whole_batch = takes_network(function)
    of_score, of_run = Evaluating(), Evaluating()

    def score(net: Any, batch: Any) -> Grouped:
        size = size_of(batch) or 1
        if whole_batch:
            return [(float(of_score(lambda: function(net, batch))), float(size))]
        inputs, target = inputs_and_target(batch)

        def value(outputs: Any, target: Any) -> float:
            return float(function(outputs, target))

        return measured_by_group(value, of_run(lambda: net(*inputs)), target, size)

    def run(net: Any, batch: Any) -> Any:
        if takes_network(loss):
            return of_run(lambda: loss(net, batch))
        return of_run(lambda: net(*inputs_and_target(batch)[0]))

    return BatchJudge(
        search,
        result.decision,
        yardstick,
        train=(to_device(batch, device) for batch in train_loader),
        valid=(to_device(batch, device) for batch in itertools.islice(valid_loader, MOST_BATCHES)),
        size=lambda batch: size_of(batch) or 1,
        run=run,
        score=score,
        held_out=not share_examples(train_loader, valid_loader),
    )


def check_wanted(candidates: int | None, random: int) -> None:
    """ValueError for numbers that there cannot be."""
    if (candidates or 0) < 0 or random < 0:
        raise ValueError(f"candidates and random must be at least 0, not {candidates} and {random}")


def verdict_after(
    search: Compared,
    result: SearchResult,
    train_loader: Iterable[Any],
    valid_loader: Iterable[Any],
    loss: Callable[[Any, Any], Tensor],
    wanted: tuple[int | None, int],
) -> tuple[list[str], Verdict | None]:
    """The verdict at the end of a fit, within a share of its work, and what is to be said.

    Args:
        wanted: candidates (None: the usual ones) and random architectures; of no candidates there
            is no verdict.
    """
    candidates, share = wanted_of(wanted[0])
    random = wanted[1]
    again = can_be_read_again(train_loader) and can_be_read_again(valid_loader)
    if candidates == 0 or not again:
        return [], None
    try:
        with as_it_was(search.passes.seed, [train_loader, valid_loader]):
            judge = judge_of_loaders(search, result, train_loader, valid_loader, loss, None)
            limit = judge.limit(search.schedule, share)
            verdict = compare(search, result, judge, candidates, random, limit)
    except FAILURES as error:  # the result of a search must not be lost for its verdict
        return [f"the derived network could not be compared with the mixture: {error}"], None
    lines = verdict.lines()
    if verdict.recalibrated:
        lines.append("BatchNorm was recalibrated: result.derive(recalibrate=train_loader)")
    return lines, verdict


@contextmanager
def as_it_was(seed: int, loaders: Iterable[Any]) -> Iterator[None]:
    """Within: random numbers of their own. Afterwards all generators are as they were."""
    held = []
    for loader in loaders:
        for generator in own_generators(loader):
            held.append((generator, generator.get_state()))
    try:
        # Wherever they stand: in a search that was resumed that may be somewhere else.
        for number, (generator, _) in enumerate(held):
            generator.manual_seed(seed_for(seed, ORDER, number))
        with seeded(seed, ORDER):
            yield
    finally:
        for generator, state in held:
            generator.set_state(state)


def can_be_read_again(loader: Iterable[Any]) -> bool:
    """Whether it has a length, and begins anew each time it is read."""
    length = length_of(loader)
    return length is not None and length > 0 and not isinstance(loader, Iterator)


def check_loaders(who: str, *loaders: Iterable[Any]) -> None:
    """ValueError for a loader that cannot be read once more; `who` reads it, for the sentence."""
    for loader in loaders:
        if not can_be_read_again(loader):
            kind = type(loader).__name__
            raise ValueError(
                f"{who} reads its loaders from their beginning, and a {kind} has no length "
                "or is used up: give a DataLoader or a list of batches"
            )


def kept(batches: Iterable[Any]) -> Iterator[Any]:
    """The first batches, as many as may be kept; at least one."""
    total = 0
    for batch in batches:
        yield batch
        total += sum(t.numel() * t.element_size() for t in tensors_of(batch))
        if total > MOST_BYTES:
            return
