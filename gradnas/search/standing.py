"""What a search stands for: its results, and what they are worth."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.latency import Costs
from gradnas.modules.draws import Draw
from gradnas.objectives.cost import ExpectedCost
from gradnas.relaxations import Relaxation
from gradnas.search.alpha_step import AlphaStep
from gradnas.search.bound_net import NetLoss
from gradnas.search.choosing import best_candidate
from gradnas.search.chosen import Chosen, check_alone, check_measure
from gradnas.search.comparing import Judge, compare
from gradnas.search.costs import NO_COSTS, Spending
from gradnas.search.curvature import Curvature
from gradnas.search.health import Health
from gradnas.search.judging import as_it_was, check_loaders, judge_of_loaders
from gradnas.search.passes import Passes
from gradnas.search.result import (
    SearchResult,
    described,
    is_of_now,
    result_of,
    say_that_nothing_was_decided,
    say_that_nothing_was_measured,
    say_what_was_not_decided,
)
from gradnas.search.schedule import Schedule
from gradnas.search.verdict import Verdict
from gradnas.selections import Selection
from gradnas.spaces.affordable import decide_within
from gradnas.spaces.base import Supernet


class Standing:
    """The half of a `Search` that looks at it: nothing of it changes."""

    supernet: Supernet
    relaxation: Relaxation
    schedule: Schedule
    passes: Passes
    alphas: dict[str, nn.Parameter]
    costs: Costs | None
    cost: ExpectedCost | None
    spending: Spending | None
    alpha_step: AlphaStep
    health: Health
    alpha_optimizer: torch.optim.Adam
    start: Mapping[str, Tensor]  # the probabilities of its beginning
    verdict: Verdict | None = None  # of the last comparison
    verdict_steps: int = -1  # finished steps at that time
    selection: Selection
    chosen: Chosen | None = None  # the best of measured candidates, where they are asked for
    chosen_steps: int = -1  # finished steps at that time

    def expected_cost(self) -> float:
        """The expected cost of the alphas as they stand, without noise.

        Raises:
            ValueError: a search without a cost.
        """
        if self.spending is None:
            raise ValueError(
                "this search has no cost: give Search(..., cost=ExpectedCost(...), example=inputs)"
            )
        return self.alpha_step.expected_cost(self.spending)

    def result(self, budget: float | None = None) -> SearchResult:
        """The decision that the alphas stand for now.

        Args:
            budget: of a search with a cost, in the unit of the cost: the best architecture within
                it. By default the budget of the cost, if it has one.

        Raises:
            ValueError: no architecture is within the budget (the cheapest is named); a budget
                without a cost.
        """
        if self.schedule.steps:
            say_what_was_not_decided(self.supernet)
            # Adam remembers something of every alpha from its first step on.
            if not self.alpha_optimizer.state and not self.schedule.alphas_wait:
                say_that_nothing_was_decided(self.schedule)
            is_over = self.schedule.epoch >= (self.schedule.epochs or 0)
            has_chosen = is_of_now(self.chosen_steps, self)
            if any(self.selection.candidates) and is_over and not has_chosen:
                say_that_nothing_was_measured(self.selection)
        return result_of(self, budget)

    def results(self, number: int, budget: float | None = None) -> list[SearchResult]:
        """The `number` most probable architectures within a budget, the most probable first.

        There may be fewer. They are candidates: train each for a short time from fresh weights and
        keep the best on held-out data, as the authors of DARTS let the results of several searches
        compete (arXiv 1806.09055, section 3).

        Args:
            number: of architectures, at least 1.
            budget: in the unit of the search's cost; by default the budget of the cost, if it has
                one.

        Raises:
            ValueError: no architecture is within the budget (the cheapest is named); no budget, or
                one without a cost; a number below 1.
        """
        if number < 1:
            raise ValueError(f"number must be at least 1, not {number}")
        if self.spending is None:
            raise ValueError(NO_COSTS)
        costs = self.spending.costs
        limit = self.spending.budget_or(budget)
        results = []
        for decision in decide_within(self.supernet, self.relaxation, costs, limit, number):
            results.append(described(self, decision))
        return results

    def compare(
        self,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any],
        loss: Callable[[Any, Any], Tensor],
        measure: Any = None,
        candidates: int = 8,
        random: int = 4,
    ) -> Verdict:
        """The derived network beside the mixture, the likeliest candidates and random ones.

        All have the weights that the search has now, BatchNorm recalibrated on train batches, and
        are measured on the same held-out batches (at most 50). A choice is decided where the best
        alternative, with all else the same, is worse by more than the noise of that comparison;
        what the selection took by measuring on held-out examples they do not confirm. Within a
        budget, if the search has one. Nothing of the search changes.

        Args:
            train_loader, valid_loader: as of `fit`; they are read from their beginning.
            loss: as of `fit`.
            measure: a function of outputs and target (or of `(net, batch)`) to a number, the larger
                the better; `gradnas.lower(...)` of one where less is better. By default the loss.
            candidates: how many of the likeliest architectures are measured, the derived one
                included.
            random: how many architectures drawn at random are measured.

        Raises:
            ValueError: a loader that cannot be read once more; numbers below 1 and 0.
        """
        if candidates < 1 or random < 0:
            raise ValueError(
                f"compare takes at least 1 candidate and 0 random ones, not {candidates} and "
                f"{random}"
            )
        check_loaders("compare", train_loader, valid_loader)
        result = self.result()
        with as_it_was(self.passes.seed, [train_loader, valid_loader]):
            judge = judge_of_loaders(self, result, train_loader, valid_loader, loss, measure)
            return self.take_verdict(compare(self, result, judge, candidates, random))

    def choose(
        self,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any],
        loss: Callable[[Any, Any], Tensor],
        measure: Any = None,
    ) -> Chosen:
        """Measure the candidates that the selection asks for, and take the best of them.

        It is `CandidateSelection` or `ScoreSelection`. `fit` does it at its end; in a loop of your
        own call it before `result()`, which has the best one until the next step.

        Args:
            train_loader, valid_loader, loss, measure: as of `compare`.

        Raises:
            ValueError: another selection; one by a measure that is not given; a loader that cannot
                be read once more; fewer than two candidates; several processes.
        """
        candidates = self.selection.candidates
        if not any(candidates):
            name = type(self.selection).__name__
            raise ValueError(
                f"{name} measures no candidates: Search(..., selection=CandidateSelection()) does"
            )
        check_alone(self.selection)
        check_measure(self.selection, measure is not None)
        check_loaders("choose", train_loader, valid_loader)
        result = self.result_by_alphas()
        with as_it_was(self.passes.seed, [train_loader, valid_loader]):
            judge: Judge = judge_of_loaders(self, result, train_loader, valid_loader, loss, measure)
            if self.selection.drawings:
                judge = judge.by_score(self.selection.drawings)
                judge.check(result.decision)
            return self.take_chosen(best_candidate(self, result, judge, candidates))

    def check_scores(
        self,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any],
        loss: Callable[[Any, Any], Tensor],
    ) -> None:
        """ValueError where the selection scores networks without a training, and cannot these."""
        if self.selection.drawings:
            result = self.result_by_alphas()
            with as_it_was(self.passes.seed, [train_loader, valid_loader]):
                judge = judge_of_loaders(self, result, train_loader, valid_loader, loss, None)
                judge.by_score(1).check(result.decision)

    def result_by_alphas(self) -> SearchResult:
        """What the alphas stand for now, whatever was measured; without warnings."""
        self.chosen = None
        return result_of(self)

    def take_chosen(self, best: Chosen) -> Chosen:
        """From now to the next step the best candidate is the decision of the results."""
        self.chosen = best
        self.chosen_steps = self.schedule.steps
        return best

    def curvature(self, valid_loss: NetLoss, products: int = 20) -> Curvature:
        """The ends of the spectrum of the Hessian of a loss in the alphas, as they are now.

        A largest eigenvalue that grows is known to come before a collapse (RobustDARTS, arXiv
        1909.09656); `fit` follows it. Nothing of the search changes.

        Args:
            valid_loss: as of `step`, of one batch.
            products: of the Hessian with vectors, at most; as many as there are alphas give it
                exactly.

        Raises:
            ValueError: it cannot be computed exactly (a sampled operation, a part without second
                derivatives, several processes); fewer products than 1.
            FloatingPointError: the loss or its derivatives are NaN or infinite.
        """
        if products < 1:
            raise ValueError(f"products must be at least 1, not {products}")
        return self.health.sharpness.now(valid_loss, products)

    def take_verdict(self, verdict: Verdict) -> Verdict:
        """From now to the next step it is that of the results."""
        self.verdict = verdict
        self.verdict_steps = self.schedule.steps
        return verdict

    def evaluation_draw(self) -> Draw:
        """The noise-free mixture, for evaluating the supernet."""
        return self.passes.mixture()
