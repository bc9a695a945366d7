"""How sharp the validation loss of a search is in its alphas, measured now and then.

By the largest eigenvalue of its Hessian on one batch: where that grows, derived networks get worse
than the mixture tells (Zela et al., "Understanding and Robustifying Differentiable Architecture
Search", ICLR 2020, arXiv 1909.09656, section 4). Their rule to stop by is here. Differences from
their code: no weight decay of the alphas is added, the batch is the first of an epoch and not the
last, and the eigenvalue is found by products with vectors, from epoch to epoch on the same way.
"""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from gradnas import distributed
from gradnas.gradients.base import NoSecondDerivative
from gradnas.precision import HALF, cuda_products, full_precision
from gradnas.randomness import generator_for, generators_kept
from gradnas.runs import State
from gradnas.search.bound_net import BoundNet, NetLoss
from gradnas.search.checks import lacks_second, scalar, user_name
from gradnas.search.curvature import Curvature, curvature
from gradnas.search.passes import Passes
from gradnas.search.recomputation import recomputation_refused
from gradnas.search.sampling import ALPHA_NOISE
from gradnas.search.slices import FAILURES

DIRECTION = 6  # stream of random numbers: where power iteration begins
# Of the steps since the last measurement that one may cost: where somebody asked for it, as for a
# guard that ends a search by it, and where nobody did
ASKED = 0.05
SHARE = 0.03
FEWEST_PRODUCTS = 2  # of one alone nothing can be said that is exact
MOST_PRODUCTS = 20
# In steps of the first order, as measured by benchmarks/health_cost.py
OF_FEWEST = 3.0  # the graph of the gradient, and the fewest products
OF_FURTHER = 1.4  # every further one

# The rule of RobustDARTS
LAG = 5  # epochs between the eigenvalues that are compared
AROUND = 2  # measurements before and after one that it is averaged with
RATIO = 0.75  # of an earlier and a later eigenvalue, below which the search should have been over
WAITING = 0.2  # share of the epochs at the start in which it grows anyway, as the weights learn


class NotExact(ValueError):
    """The Hessian cannot be computed exactly; the sentence says why."""


class Eigenvalue(NamedTuple):
    """The largest eigenvalue after so many finished epochs."""

    epochs: int
    value: float


class Growth(NamedTuple):
    """Two averaged eigenvalues, of which the later is too large.

    Attributes:
        epochs: finished epochs at the earlier.
        before, now: the eigenvalues.
    """

    epochs: int
    before: float
    now: float


class Sharpness:
    """The eigenvalues of a search so far.

    Args:
        passes: of the search.

    Attributes:
        share: of the steps, that measurements may cost.
        measured: in the present epoch, before its first step of the alphas; None: not.
        reason: why there can be none; None where nothing is known against it.
        series: of those whose residual is small, an earlier epoch first.
    """

    def __init__(self, passes: Passes) -> None:
        self.passes = passes
        self.share = ASKED
        self.measured: Curvature | None = None
        self.reason: str | None = None
        self.series: list[Eigenvalue] = []
        self._paid = 0  # steps up to which the budget of measurements is used up
        self._direction: Tensor | None = None

    # ---- measuring -------------------------------------------------------------------------------

    def measure(self, valid_loss: NetLoss) -> bool:
        """Before a step of the alphas: measure, where it is due. Whether the network was run.

        What fails leaves its reason, and is not tried again.
        """
        products = self._due()
        if products == 0:
            return False
        schedule = self.passes.schedule
        self._paid = schedule.steps
        start_n = self._random() if self._direction is None else self._direction
        try:
            found, following_n = self._curvature(valid_loss, products, start_n)
        except FloatingPointError:
            return True  # of this batch; another may do
        except FAILURES as error:  # of a user's loss too: a search must not be lost for its health
            self.reason = _first_line(error)
            return True
        self.measured = found
        if following_n.norm() > 0:
            self._direction = following_n
        if found.is_settled:
            self.series.append(Eigenvalue(schedule.epoch, found.largest))
        return True

    def now(self, valid_loss: NetLoss, products: int) -> Curvature:
        """The curvature of a loss with the weights and the alphas of now; nothing changes.

        Raises:
            NotExact: it cannot be computed exactly.
            FloatingPointError: it is NaN or infinite.
        """
        return self._curvature(valid_loss, products, self._random())[0]

    def finish_epoch(self) -> Curvature | None:
        """What was measured in the epoch that ends."""
        found = self.measured
        self.measured = None
        return found

    def begin_anew(self) -> None:
        """Where the next measurement begins says nothing any more."""
        self._direction = None

    def _due(self) -> int:
        """The products that may be made now."""
        if self.measured is not None or self.reason is not None:
            return 0
        payable = self.share * (self.passes.schedule.steps - self._paid)
        payable /= self.passes.supernet.steps_of_product
        if payable < OF_FEWEST - 1e-9:
            return 0
        further = int((payable - OF_FEWEST) / OF_FURTHER + 1e-9)
        return min(FEWEST_PRODUCTS + further, MOST_PRODUCTS)

    def _random(self) -> Tensor:
        number = sum(alpha.numel() for alpha in self.passes.alphas.values())
        generator = generator_for(self.passes.seed, DIRECTION)
        return torch.randn(number, generator=generator, dtype=torch.float64, device="cpu")

    def _curvature(
        self, valid_loss: NetLoss, products: int, start_n: Tensor
    ) -> tuple[Curvature, Tensor]:
        passes = self.passes
        _check_exact(passes)

        def smooth(net: BoundNet) -> Tensor:
            if not net.draw.is_dense or net.draw.probed is not None:
                raise NotExact(
                    f"{type(passes.relaxation).__name__} samples operations, so that the loss is "
                    "no smooth function of the alphas"
                )
            if passes.relaxation.once_differentiable:
                raise NotExact(
                    f"what {type(passes.relaxation.innermost).__name__} draws has no second "
                    "derivative"
                )
            return scalar(valid_loss(net), "validation")

        loss = passes.closure(smooth, passes.noise(ALPHA_NOISE))
        # What is kept for backward is no part of what a step needs: not counted as that.
        uncounted = torch.autograd.graph.saved_tensors_hooks(_as_it_is, _as_it_is)
        with (
            generators_kept(),
            cuda_products("fp32"),
            full_precision(),
            recomputation_refused(passes.supernet),
            uncounted,
        ):
            try:
                return curvature(loss, passes.params, passes.alphas, products, start_n)
            except NoSecondDerivative as error:
                raise NotExact(error.what) from error
            except torch.OutOfMemoryError as error:
                raise NotExact("there is not enough memory for it") from error
            except (RuntimeError, NotImplementedError) as error:
                if not lacks_second(error):
                    raise
                raise NotExact(
                    "torch has no second derivative of a part of the network or the loss "
                    f"({_first_line(error)})"
                ) from error

    # ---- the rule --------------------------------------------------------------------------------

    def growth(self, epochs: int | None, first: int) -> Growth | None:
        """Where the rule says that the search should have been over; None where it does not.

        Args:
            epochs: length of the search.
            first: finished epochs before which no decision is known that could be taken.
        """
        warmup = self.passes.schedule.warmup_epochs
        return growth(self.series, max(warmup, first, WAITING * (epochs or 0)))

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> State:
        """Tensors and plain values."""
        measured = self.measured
        return {
            "paid": self._paid,
            "direction": self._direction,
            "reason": self.reason,
            "series": [list(one) for one in self.series],
            "measured": None if measured is None else dict(vars(measured)),
        }

    def load_state_dict(self, state: State) -> None:
        """The inverse of `state_dict`."""
        self._paid = state["paid"]
        self._direction = state["direction"]
        self.reason = state["reason"]
        self.series = [Eigenvalue(*one) for one in state["series"]]
        measured = state["measured"]
        self.measured = None if measured is None else Curvature(**measured)


def growth(series: Sequence[Eigenvalue], waiting: float) -> Growth | None:
    """The rule of RobustDARTS on a series of eigenvalues.

    Each is averaged with its neighbours. The last that has them all is compared with the last one
    that is `LAG` epochs older.

    Args:
        waiting: finished epochs before which none is compared.
    """
    averaged: list[Eigenvalue] = []
    for place in range(AROUND, len(series) - AROUND):
        window = series[place - AROUND : place + AROUND + 1]
        mean = statistics.fmean(value for _, value in window)
        averaged.append(Eigenvalue(series[place].epochs, mean))
    if not averaged:
        return None
    now = averaged[-1]
    earlier = [one for one in averaged if waiting <= one.epochs <= now.epochs - LAG]
    if not earlier:
        return None
    before = earlier[-1]
    # Not by their quotient: the later one may be 0, or have fallen below it.
    has_grown = before.value > 0 and before.value < RATIO * now.value
    return Growth(before.epochs, before.value, now.value) if has_grown else None


def _check_exact(passes: Passes) -> None:
    """NotExact where products with the Hessian would be of something else."""
    if distributed.world() > 1:
        raise NotExact(
            f"the batch is spread over {distributed.world()} processes, and it is measured in one"
        )
    for name, weight in passes.params.items():
        if weight.dtype in HALF:
            kind = str(weight.dtype).removeprefix("torch.")
            raise NotExact(f"the weight {user_name(name)!r} is {kind}, which has too few digits")


def _as_it_is(tensor: Tensor) -> Tensor:
    return tensor


def _first_line(error: Exception) -> str:
    lines = str(error).splitlines() or [type(error).__name__]
    return lines[0]
