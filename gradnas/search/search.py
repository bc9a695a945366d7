"""`Search`: the bilevel loop over any supernet or any module with `Choice`s.

One step, in the order of DARTS (arXiv 1806.09055, algorithm 1): the alphas take a step on the
validation loss, with the architecture gradient of choice; then the weights take a step on the train
loss, on the same train batch, with the new alphas.

Its parts, one a file: `schedule` (the position), `passes` (how a loss is evaluated), `alpha_step`
with `rewards`, `weight_step`, `costs`, `feed` (batches), `result`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gradnas import distributed
from gradnas.config.arguments import refuse_unknown
from gradnas.gradients import ArchitectureGradient, FirstOrder
from gradnas.latency import Costs
from gradnas.modules.synchronised import synchronised_norms
from gradnas.objectives.cost import ExpectedCost
from gradnas.objectives.terms import AlphaTerm
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.precision import check_precision, cuda_products
from gradnas.relaxations import Relaxation, Softmax
from gradnas.runs import OnEpoch, State
from gradnas.search.alpha_step import AlphaStep
from gradnas.search.bound_net import BoundNet, NetLoss, StepReport
from gradnas.search.broadcasts import no_outer_products
from gradnas.search.checks import (
    MakeOptimizer,
    check_combination,
    check_gradients,
    check_hooks,
    check_methods,
    check_network,
    check_settings,
    user_name,
)
from gradnas.search.costs import counted_costs, spending_of
from gradnas.search.feed import Feed, Sizes, T, V
from gradnas.search.fitting import fit
from gradnas.search.freezing import freezing_of
from gradnas.search.health import Health
from gradnas.search.modes import Modes
from gradnas.search.passes import Passes
from gradnas.search.result import SearchResult, strengths
from gradnas.search.rewards import rewards_of
from gradnas.search.schedule import Schedule
from gradnas.search.selecting import check_selection, selecting_of
from gradnas.search.standing import Standing
from gradnas.search.state import state_of, take_over
from gradnas.search.steadying import Steadying
from gradnas.search.terms import Terms
from gradnas.search.undo import Undo
from gradnas.search.unlearnt import say_what_does_not_learn
from gradnas.search.weight_step import WeightStep
from gradnas.selections import Selection, Strongest
from gradnas.settings.formats import Guard, Precision
from gradnas.spaces.base import Supernet
from gradnas.spaces.your_module import ModuleSupernet
from gradnas.stabilizers import Stabilizer


class Search(Standing):
    """A search over `net`, with your own loop (`pairs`, `step`, `result`) or ours (`fit`).

    Args:
        net: a module with `Choice`s in it, or the supernet of a space. It is searched in place.
        relaxation: from alphas to mixing weights.
        gradient: how d L_valid / d alpha is computed.
        weights: settings of SGD on the weights, or a function `params -> torch.optim.Optimizer` of
            your own (its schedule is then yours too).
        alphas: settings of Adam on the alphas; None takes those that fit the relaxation.
        epochs: length of the search, for the schedules; None: constant learning rate. `fit` sets
            it.
        warmup_epochs: epochs at the start in which only the weights learn.
        alpha_every: the alphas take a step before every so many steps of the weights.
        steps_per_epoch: for a learning rate that falls with every step. `fit` sets it.
        seed: of the alphas' start and of everything a relaxation samples.
        device: where to move the network; None leaves it where it is.
        precision: `"bf16"` runs the losses under autocast; `"tf32"` allows TF32 on a CUDA device,
            `"fp32"` does not.
        cost: an expected cost in the loss of the alphas; with a budget, the result is the best
            architecture within it.
        example: with a cost, the inputs of the network whose cost is meant: one tensor, a tuple, or
            a `gradnas.Call` with named ones. For latencies their shapes, batch included, must be
            those that were measured. Multiply-adds are counted of the first example, however many
            there are along the first dimension of all tensors; where that is no batch (first
            dimensions differ, a recurrent layer reads time first, the network does not take the
            first alone) they are counted of the whole, with a warning.
        terms: of the alphas alone, added to their loss: `BetaDecay()`, `ZeroOne()`,
            `DirichletKL()`.
        stabilizers: change how the weights learn: `PerturbedAlphas()`, `AuxiliarySkip()`,
            `OperationFreezing()`.
        selection: how the decision is had in the end; `PerturbationSelection()`,
            `CandidateSelection()` and `ScoreSelection()` measure.

    Attributes:
        supernet: the network, with every choice open.
        params, alphas: its weights and its architecture parameters, by name.
        weight_optimizer, alpha_optimizer: the torch optimisers.
        schedule: the position, and the settings that depend on it.
        cost, costs: of a search with a cost, the setting and the costs of all operations.
        health: what is known of how well it goes, see `gradnas.search.health.Health`.

    Raises:
        ValueError: a combination that cannot work, at once and with the reason.
    """

    def __init__(
        self,
        net: nn.Module,
        relaxation: Relaxation = Softmax(),
        gradient: ArchitectureGradient = FirstOrder(),
        weights: WeightOptimizer | MakeOptimizer = WeightOptimizer(),
        alphas: AlphaOptimizer | None = None,
        epochs: int | None = None,
        warmup_epochs: int = 0,
        alpha_every: int = 1,
        steps_per_epoch: int | None = None,
        seed: int = 0,
        device: str | torch.device | None = None,
        precision: Precision = "fp32",
        cost: ExpectedCost | None = None,
        example: Any = None,
        terms: Sequence[AlphaTerm] = (),
        stabilizers: Sequence[Stabilizer] = (),
        selection: Selection = Strongest(),
        **unknown: Any,
    ) -> None:
        refuse_unknown(Search.__init__, unknown)
        distributed.check_joined()
        check_network(net)
        check_settings(weights, alphas)
        check_methods(relaxation, gradient, terms, stabilizers, cost)
        self.supernet: Supernet = net if isinstance(net, Supernet) else ModuleSupernet(net, seed)
        self.schedule = Schedule(epochs, warmup_epochs, alpha_every, steps_per_epoch)
        steadying = Steadying(stabilizers, relaxation, self.schedule)
        self.supernet.add(relaxation.additions | steadying.additions, seed)
        say_what_does_not_learn(net)
        if device is not None:
            self.supernet.to(device)
        check_precision(precision, next(self.supernet.parameters()).device)
        self.relaxation = relaxation
        self.supernet.relaxation = relaxation
        self.gradient = gradient
        self.precision: Precision = precision
        self.passes = Passes(self.supernet, relaxation, self.schedule, precision, seed, steadying)
        self.selection = selection
        check_selection(selection, relaxation, cost)
        self.selecting = selecting_of(selection, self.passes)
        self.params = self.passes.params
        self.alphas = self.passes.alphas
        self.costs: Costs | None = (
            None if cost is None else counted_costs(self.supernet, cost, example, self.device)
        )
        # Ranks average gradients, not weights: they must start from the same ones.
        distributed.copy_from_main([*self.supernet.parameters(), *self.supernet.buffers()])
        self.weight_step = WeightStep(self.passes, weights)
        self.weight_optimizer = self.weight_step.optimizer
        alphas = alphas or AlphaOptimizer(**relaxation.alpha_defaults)
        check_combination(relaxation, gradient, alphas)
        check_hooks(self.params, gradient)
        gradient.check_weights({user_name(name): p for name, p in self.params.items()})
        self.alpha_optimizer = alphas.build(self.alphas.values())

        # The multiplier of a budget takes its pace from that of the alphas.
        self.cost = None if cost is None else cost.paced(alphas.lr)
        self.spending = spending_of(self.cost, self.costs)
        self.terms = Terms(terms, relaxation, gradient, self.schedule, list(self.passes.tables))
        self.rewards = rewards_of(gradient, self.passes, self.spending)
        self.alpha_step = AlphaStep(
            self.passes,
            gradient,
            self.alpha_optimizer,
            self.weight_step,
            self.spending,
            self.rewards,
            self.terms,
        )
        self.freezing = freezing_of(stabilizers, self.passes, gradient)
        if gradient.needs_inner_step:
            self.weight_step.inner_step(gradient)  # refuses now what it cannot look through
        self.start = strengths(relaxation, self.passes.tables)
        self.undo = Undo(self.alpha_step)
        self.weight_step.set_learning_rate()
        self.feed = Feed()
        self.modes = Modes(self.supernet.searched)
        self.health = Health(self.passes, self.cost is not None)

    # ---- the loop --------------------------------------------------------------------------------

    @property
    def epoch(self) -> int:
        """Finished epochs."""
        return self.schedule.epoch

    @property
    def steps(self) -> int:
        """Finished steps, in all epochs."""
        return self.schedule.steps

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.passes.device

    def pairs(self, train_loader: Iterable[T], valid_loader: Iterable[V]) -> Iterator[tuple[T, V]]:
        """One epoch of (train batch, validation batch), moved to the device of the weights.

        The validation iterator goes on where the last epoch left it and starts over when it is
        exhausted: no worker is restarted in each step. When the epoch is over, `epoch` moves on and
        the learning rate follows.

        Raises:
            ValueError: a loader yields nothing.
        """
        self.schedule.check_alphas_move(self.schedule.epochs)
        yield from self.feed.pairs(train_loader, valid_loader, self.device)
        self.finish_epoch()

    def finish_epoch(self) -> None:
        """Count one epoch and move the schedules on (`pairs` and `fit` do it themselves)."""
        self.schedule.finish_epoch()
        self.feed.finish_epoch()
        self.weight_step.set_learning_rate()

    def step(
        self,
        train_loss: NetLoss,
        valid_loss: NetLoss | None = None,
        sizes: Sizes | None = None,
    ) -> StepReport:
        """One step of the alphas (if it is due, and with a `valid_loss`), then one of the weights.

        Args:
            train_loss, valid_loss: functions from the network to a scalar loss. They may be called
                several times, with different weights; they must not change anything outside.
            sizes: of several processes: over how many examples the two losses are means, on this
                rank. By default those of the batches that `pairs` gave last; without them all
                ranks count the same.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite. The whole step is undone (alphas,
                weights, optimisers, running statistics, random state): you may skip the batch.
        """
        check_gradients()
        seen_valid_loss = None
        self.undo.remember()
        if not self.schedule.steps:
            # The first step tells, as shapes hardly change.
            train_loss = self._checked(train_loss)
            valid_loss = None if valid_loss is None else self._checked(valid_loss)
        if self.freezing is not None:
            self.freezing.begin()
        self.passes.weigh(self.feed.sizes if sizes is None else sizes)
        with cuda_products(self.precision), synchronised_norms():
            try:
                # The alphas first, as in algorithm 1: a second-order gradient looks through the
                # very step that the weights take next, on the same train batch and with the same
                # optimiser.
                if valid_loss is not None and self.schedule.alpha_due:
                    self._look(valid_loss)
                    seen_valid_loss = self.alpha_step(train_loss, valid_loss)
                seen_train_loss = self.weight_step.prepare(train_loss)
            except BaseException:  # whatever stops it, there is no half of a step
                self.undo()
                if self.freezing is not None:
                    self.freezing.undo()
                raise
            if self.freezing is not None:
                self.freezing.before_weights()
            self.weight_step.take()
        self.weight_step.advance()
        return StepReport(seen_train_loss, seen_valid_loss)

    def _checked(self, loss: NetLoss) -> NetLoss:
        """The loss, which refuses outputs and targets of other shapes than each other's."""

        def checked(net: BoundNet) -> Tensor:
            with no_outer_products(self.supernet):
                return loss(net)

        return checked

    def _look(self, valid_loss: NetLoss) -> None:
        """What is measured of a loss that the alphas are about to take a step on."""
        has_run = self.health.before_alphas(valid_loss)
        if self.freezing is not None:
            has_run |= self.freezing.before_alphas(valid_loss)
        if has_run:
            self.undo()  # what a pass leaves in the attributes of modules
            self.undo.remember()

    def select(self, measure: Callable[[BoundNet], float]) -> list[str]:
        """Make the rounds of the selection that are due, where it measures (`fit` does it itself).

        To be called before every epoch of a loop of your own.

        Args:
            measure: a function of the network to a number, the larger the better, on the data of
                the alphas.

        Returns:
            What was decided, in sentences.
        """
        return [] if self.selecting is None else self.selecting.select(measure)

    def probe(self, loss: NetLoss) -> Tensor:
        """The value of a loss in the coming architecture step, with weights and samples of now.

        Nothing changes by it: no weight, no buffer, no random state (so that the step itself sees
        the same dropout).
        """
        with synchronised_norms():
            return self.alpha_step.probe(loss)

    def fit(
        self,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any],
        loss: Callable[[Any, Any], Tensor],
        epochs: int,
        progress: bool = True,
        out: str | Path | None = None,
        resume: bool = False,
        candidates: int | None = None,
        random: int = 4,
        on_epoch: OnEpoch | None = None,
        guard: Guard = "warn",
    ) -> SearchResult:
        """Search for `epochs` epochs, with `loss(net(inputs ...), target)` on every batch.

        A batch is `(inputs ..., target)`; one of any other form takes a loss of `(net, batch)`,
        whose parameters are called so. A second call goes on for `epochs` more; after a stop in the
        middle (an error, a state that was loaded) the call that is repeated goes on to its end.

        At the end the derived network is compared with the mixture, with the likeliest candidates
        and with random architectures, within 4.5% of the search's work: see `compare`, and
        `result.verdict`.

        A network in eval mode is put into train mode, except for what you froze: parts that were in
        eval mode inside a network in train mode, and parts none of whose parameters is trained. In
        a network in train mode nothing is changed.

        Args:
            progress: show it, and at the end the verdict, where there is one: of loaders with a
                length, which can be read once more.
            out: a run folder to make, with metrics, alphas and checkpoints: `gradnas report` makes
                a page of it.
            resume: go on with the run in that folder, which was stopped: give the same `Search` and
                the same arguments.
            candidates, random: as of `compare`. Whoever says how many candidates lets them take a
                tenth of the search's work; with 0 nothing is compared.
            on_epoch: a function that is told of every epoch when it has ended
                (`gradnas.runs.Epoch`), for a tracker of your own. What it raises ends the search;
                with `out` it may be resumed.
            guard: what follows where the validation loss becomes sharp in the alphas, which is
                known to come before a collapse, or where the search has collapsed: `"warn"` says
                so, `"stop"` ends the search with the last decision that was good, `"off"` measures
                nothing (it takes at most 5% of the steps) and says nothing. `health` has what was
                seen.

        Raises:
            ValueError: a folder that holds anything, or no run of this search to go on with;
                batches of another form (then write a loss of `(net, batch)`); other `epochs` in the
                middle of a search; no epoch after those of the warm-up.
        """
        wanted = (candidates, random)
        loaders = train_loader, valid_loader
        return fit(self, *loaders, loss, epochs, progress, wanted, out, resume, on_epoch, guard)

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the search is, for `torch.save`.

        Tensors and plain values only, so that it loads with `weights_only=True`.
        """
        return state_of(self)

    def load_state_dict(self, state: State) -> None:
        """Take over a state from `state_dict`, random state included.

        Weights and alphas are found by name, the columns of an alpha by their operations. The
        loaders of `pairs` and `fit` are brought to where they were: a torch generator of their own
        is set back, and batches are counted. One that does not repeat its batches is named in a
        warning.

        Raises:
            ValueError: the state is of another network, relaxation, gradient or optimiser, or of
                other operations.
        """
        take_over(self, state)
