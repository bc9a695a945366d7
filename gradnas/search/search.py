"""`Search`: the bilevel loop over any supernet or any module with `Choice`s.

One step, in the order of DARTS (algorithm 1): the alphas take a step on the validation loss, with
the architecture gradient of choice; then the weights take a step on the train loss, on the same
train batch, with the new alphas.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from gradnas import distributed
from gradnas.architectures.chain import Chain
from gradnas.architectures.genotype import Genotype
from gradnas.choice import Draw
from gradnas.gradients import ArchitectureGradient, FirstOrder, Reinforce, SGDStep
from gradnas.gradients.base import Loss, Tensors, copies, leaves, norm, same_randomness
from gradnas.latency import Costs, Device, device_notes
from gradnas.objectives.cost import CostState, ExpectedCost, accuracy_latency_reward
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.precision import Precision, autocast, check_precision, cuda_products
from gradnas.progress import Progress
from gradnas.randomness import generator_for, random_state, set_random_state
from gradnas.relaxations import Relaxation, Softmax
from gradnas.runs import NonFiniteError, write_json
from gradnas.spaces.base import Supernet, Weights
from gradnas.spaces.your_module import ModuleSupernet

ALPHA_NOISE, WEIGHT_NOISE = 1, 2  # streams of the relaxation's random numbers


class BoundNet:
    """What a loss is called with: the network with one particular setting of weights, alphas and
    sampled choices."""

    def __init__(self, supernet: Supernet, draw: Draw, tensors: Tensors | None) -> None:
        self._supernet, self._draw, self._tensors = supernet, draw, tensors

    def __call__(self, *inputs: Any, **named: Any) -> Any:
        if self._tensors is None:
            return self._supernet(*inputs, draw=self._draw, **named)
        return functional_call(self._supernet, self._tensors, inputs, {**named, "draw": self._draw})

    @property
    def draw(self) -> Draw:
        """The setting of all choices in this pass, for losses with a cost of the architecture."""
        return self._draw

    def __getattr__(self, name: str) -> Any:
        # Reading through to the module would give the real weights where a probing pass needs
        # others.
        raise AttributeError(
            f"inside a loss the network can only be called: net(...); it has no attribute {name!r} here"
        )


NetLoss = Callable[[BoundNet], Tensor]


@dataclass(frozen=True)
class StepReport:
    """Losses of one step, detached scalars; `valid_loss` is None where the alphas took no step."""

    train_loss: Tensor
    valid_loss: Tensor | None


@dataclass(frozen=True)
class SearchResult:
    """What the search stands for at one moment.

    Attributes:
        choices: choice name -> operation for a module with choices; the `Genotype` or `Chain` for a
            space.
        cost: of a search with a cost, what the decision costs (see `costs.unit`).
    """

    choices: Any
    supernet: Supernet
    cost: float | None = None

    @property
    def genotype(self) -> Any:
        """What was found: a `Genotype` or a `Chain`. ValueError for a module with choices: it has
        neither."""
        if not isinstance(self.choices, (Genotype, Chain)):
            raise ValueError("a module with choices has no genotype; read result.choices")
        return self.choices

    def derive(self, weights: Weights = "keep") -> nn.Module:
        """The plain network of the decision: with the searched weights, or `"fresh"`.

        For a module with choices, fresh weights are those that the module had when the search
        began.
        """
        if weights not in ("keep", "fresh"):
            raise ValueError(f"weights must be 'keep' or 'fresh', not {weights!r}")
        return self.supernet.derived(self.choices, weights)

    def save(self, path: str | Path) -> None:
        """Write the decision as JSON."""
        if isinstance(self.choices, (Genotype, Chain)):
            self.choices.save(path)
        else:
            write_json(
                Path(path),
                {"format": "gradnas-choices", "version": 1, "choices": dict(self.choices)},
            )


class Search:
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
        example: with a cost, the inputs of the network whose cost is meant: one tensor, or a tuple.
            For latencies their shapes, batch included, must be those that were measured; for
            multiply-adds give one image.

    Raises:
        ValueError: a combination that cannot work, at once and with the reason.
    """

    def __init__(
        self,
        net: nn.Module,
        relaxation: Relaxation = Softmax(),
        gradient: ArchitectureGradient = FirstOrder(),
        weights: WeightOptimizer
        | Callable[[list[nn.Parameter]], torch.optim.Optimizer] = WeightOptimizer(),
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
    ) -> None:
        self.supernet: Supernet = net if isinstance(net, Supernet) else ModuleSupernet(net, seed)
        if device is not None:
            self.supernet.to(device)
        check_precision(precision, next(self.supernet.parameters()).device)
        self.relaxation, self.gradient, self.settings = relaxation, gradient, weights
        self.epochs, self.warmup_epochs, self.seed, self.precision = (
            epochs,
            warmup_epochs,
            seed,
            precision,
        )
        if alpha_every < 1:
            raise ValueError(f"alpha_every must be at least 1, not {alpha_every}")
        self.alpha_every, self.steps_per_epoch = alpha_every, steps_per_epoch
        self.epoch = self.steps = self.steps_before_epoch = 0
        self.baseline: float | None = None  # of the rewards, where the gradient learns from those
        self._valid: tuple[Any, Iterator[Any]] | None = None
        self._valid_drawn = 0
        # Alphas are told apart by identity: whatever else refers to them, they stay out of the
        # weight optimiser.
        architecture = {id(p) for p in self.supernet.alphas.values()}
        named = {
            k: p
            for k, p in self.supernet.named_parameters()
            if id(p) not in architecture and p.requires_grad
        }
        if not named:
            raise ValueError("the network has no trainable weights besides its alphas")
        self.params: dict[str, nn.Parameter] = named
        self.alphas: dict[str, nn.Parameter] = dict(self.supernet.alphas.items())
        self.cost, self.cost_state = cost, CostState()
        self.costs = None if cost is None else _costs(self.supernet, cost, example, self.device)
        distributed.copy_from_main([*self.supernet.parameters(), *self.supernet.buffers()])
        make = weights.build if isinstance(weights, WeightOptimizer) else weights
        self.weight_optimizer = make(list(named.values()))
        alphas = alphas if alphas is not None else AlphaOptimizer(**relaxation.alpha_defaults)
        self.alpha_optimizer = alphas.build(self.alphas.values())
        self._check_combination(alphas)
        if cost is not None:
            self.cost = cost.paced(alphas.lr)
        self.clip_norm = weights.clip_norm if isinstance(weights, WeightOptimizer) else None
        if gradient.needs_inner_step:
            self.inner_step()  # refuses now what it cannot look through
        self._set_learning_rate()

    def _check_combination(self, alphas: AlphaOptimizer) -> None:
        relaxation, gradient = type(self.relaxation).__name__, type(self.gradient).__name__
        if self.gradient.differentiates_twice and self.relaxation.once_differentiable:
            raise ValueError(
                f"{gradient} needs second derivatives, which {relaxation} does not have; use FirstOrder(), "
                "Unrolled(mode='finite_difference') or Reinforce()"
            )
        if not self.gradient.num_samples:
            self.relaxation.check_alpha_optimizer(alphas.betas, alphas.weight_decay)
        check_samples(self.relaxation, self.gradient)

    # ---- the loop --------------------------------------------------------------------------------

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return next(iter(self.params.values())).device

    @property
    def progress(self) -> float:
        """Share of the search that is done, in [0, 1]: epoch / (epochs - 1)."""
        if self.epochs is None:
            if self.relaxation.needs_progress:
                raise ValueError(
                    f"{self.relaxation} changes over the search: say how long it is with Search(..., epochs=N)"
                )
            return 0.0
        return min(1.0, self.epoch / max(1, self.epochs - 1))

    @property
    def warming_up(self) -> bool:
        """Whether the alphas still wait."""
        return self.epoch < self.warmup_epochs

    @property
    def alpha_due(self) -> bool:
        """Whether the coming step begins with one of the alphas."""
        return (
            not self.warming_up
            and self.steps % self.alpha_every == 0
            and (self.alpha_every == 1 or self.steps > 0)
        )

    def pairs(
        self, train_loader: Iterable[Any], valid_loader: Iterable[Any]
    ) -> Iterator[tuple[Any, Any]]:
        """One epoch of (train batch, validation batch), moved to the device of the weights.

        The validation iterator goes on where the last epoch left it and starts over when it is
        exhausted: no worker is restarted in each step. When the epoch is over, `epoch` moves on and
        the learning rate follows.

        Raises:
            ValueError: a loader yields nothing.
        """
        empty = True
        for train_batch in train_loader:
            empty = False
            yield (
                _to_device(train_batch, self.device),
                _to_device(self._next_valid(valid_loader), self.device),
            )
        if empty:
            raise ValueError("the train loader yields no batch")
        self.finish_epoch()

    def finish_epoch(self) -> None:
        """Count one epoch and move the schedules on (`pairs` and `fit` do it themselves)."""
        self.epoch += 1
        self.steps_before_epoch = self.steps
        self._set_learning_rate()

    def step(self, train_loss: NetLoss, valid_loss: NetLoss | None = None) -> StepReport:
        """One step of the alphas (if it is due, and with a `valid_loss`), then one of the weights.

        Args:
            train_loss, valid_loss: functions from the network to a scalar loss. They may be called
                several times, with different weights; they must not change anything outside.

        Raises:
            NonFiniteError: a loss or gradient is NaN or infinite; that update was not made.
        """
        found = None
        with cuda_products(self.precision):
            if valid_loss is not None and self.alpha_due:
                found = self._alpha_step(train_loss, valid_loss)
            loss = self._weight_step(train_loss)
        self.advance()
        return StepReport(loss, found)

    def advance(self) -> None:
        """Count one step and move the schedules on (`step` does it itself)."""
        self.steps += 1
        if isinstance(self.settings, WeightOptimizer) and self.settings.per_iteration:
            self._set_learning_rate()

    def _alpha_step(self, train_loss: NetLoss, valid_loss: NetLoss) -> Tensor:
        noise = self._noise(ALPHA_NOISE)
        baseline = self.baseline
        try:
            if self.gradient.num_samples:
                grads, loss, baseline = self._sampled_gradient(valid_loss)
            else:
                inner = self.inner_step() if self.gradient.needs_inner_step else None
                grads, loss = self.alpha_gradient(train_loss, valid_loss, noise, inner)
        except FloatingPointError as error:
            raise self.not_finite(str(error)) from error
        if not torch.isfinite(norm([*grads.values(), loss])):
            raise self.not_finite(
                "the validation loss or the architecture gradient is NaN or infinite"
            )
        before = {name: alpha.detach().clone() for name, alpha in self.alphas.items()}
        for name, alpha in self.alphas.items():
            alpha.grad = grads[name]
        self.alpha_optimizer.step()
        self.alpha_optimizer.zero_grad(set_to_none=True)
        self.baseline = baseline
        if not self.gradient.num_samples:
            corrected = self.relaxation.after_update(before, self.alphas, noise)
            with torch.no_grad():
                for name, alpha in self.alphas.items():
                    if corrected[name] is not alpha:
                        alpha.copy_(corrected[name])
        if self.cost is not None:
            self.cost_state = self.cost.advanced(self.cost_state, self.expected_cost())
        return loss

    def alpha_gradient(
        self, train_loss: NetLoss, valid_loss: NetLoss, noise: Tensors, inner: SGDStep | None
    ) -> tuple[Tensors, Tensor]:
        """The architecture gradient of one step, and the validation loss that was seen first;
        changes nothing."""
        seen: list[Tensor] = []

        def with_cost(net: BoundNet) -> Tensor:
            loss = valid_loss(net)
            seen.append(loss.detach())
            if self.cost is None or self.costs is None:
                return loss
            return self.cost.combine(
                loss, self.costs.expected(net.draw.probabilities), self.cost_state
            )

        train = self._closure(train_loss, noise)
        valid = self._closure(with_cost, noise)
        grads = self.gradient(train, valid, self.params, self.alphas, inner=inner)
        return grads, seen[0]

    def _sampled_gradient(self, valid_loss: NetLoss) -> tuple[Tensors, Tensor, float]:
        """The gradient from the rewards of sampled networks, the mean loss, and the next
        baseline."""
        assert isinstance(self.gradient, Reinforce)
        tables, log_probs, losses, sampled = leaves(self.alphas), [], [], []
        for sample in range(self.gradient.num_samples):
            noise = self.relaxation.noise(
                self.alphas, generator_for(self.seed, ALPHA_NOISE, self.steps, sample)
            )
            draw = self.relaxation.path(tables, noise, self.progress)
            log_probs.append(draw.log_prob)
            with torch.no_grad(), same_randomness([*self.params.values()]), self._autocast():
                found = valid_loss(BoundNet(self.supernet, draw, self._with_own_buffers({})))
            losses.append(torch.as_tensor(found, dtype=torch.float64, device=self.device).detach())
            sampled.append(draw)
        (mean_losses_M,) = distributed.mean(
            [torch.stack(losses)]
        )  # every rank sees its share of the batch
        rewards = [
            self._reward(loss, draw) for loss, draw in zip(mean_losses_M, sampled, strict=True)
        ]
        grads, baseline = self.gradient.estimate(log_probs, rewards, tables, self.baseline)
        if self.cost is not None and self.costs is not None and self.cost.is_budget:
            # A budget binds the expected cost, whose gradient is known: sampling it would only add
            # noise.
            probabilities = {
                name: self.relaxation.probabilities(alpha) for name, alpha in tables.items()
            }
            zero = torch.zeros((), dtype=torch.float64, device=self.device)
            term = self.cost.combine(zero, self.costs.expected(probabilities), self.cost_state)
            pulls = torch.autograd.grad(term, list(tables.values()), allow_unused=True)
            grads = {
                name: grads[name] if pull is None else grads[name] + pull
                for name, pull in zip(tables, pulls, strict=True)
            }
        return grads, mean_losses_M.mean(), baseline

    def _reward(self, loss: Tensor, draw: Draw) -> float:
        """The reward of a sampled network with this validation loss."""
        assert isinstance(self.gradient, Reinforce)
        if self.cost is None or self.costs is None or self.cost.is_budget:
            return -loss.item()
        spent = self.costs.expected({name: mix.detach() for name, mix in draw.mix.items()})
        if self.gradient.reward == "accuracy":
            return accuracy_latency_reward(
                -loss.item(), spent.item(), self.cost.limit, self.gradient.exponent
            )
        return -self.cost.combine(loss, spent.to(loss), self.cost_state).item()

    @torch.no_grad()
    def probe(self, loss: NetLoss) -> Tensor:
        """The value of a loss in the coming architecture step: with the weights, alphas and samples
        of now.

        Nothing changes by it: no weight, no buffer, no random state (so that the step itself sees
        the same dropout).
        """
        with same_randomness([*self.params.values(), *self.alphas.values()]):
            value = self._closure(loss, self._noise(ALPHA_NOISE))(
                dict(self.params), dict(self.alphas)
            )
        return value

    def weight_gradient(
        self, train_loss: NetLoss
    ) -> tuple[Tensor, list[nn.Parameter], list[Tensor]]:
        """The train loss, the weights that have a gradient, and their gradients; updates running
        statistics alone."""
        tables = {name: a.detach() for name, a in self.alphas.items()}
        draw = self.relaxation.path(tables, self._noise(WEIGHT_NOISE), self.progress)
        with self._autocast():
            loss = train_loss(BoundNet(self.supernet, draw, None))
        if not isinstance(loss, Tensor) or loss.dim() != 0:
            shape = tuple(loss.shape) if isinstance(loss, Tensor) else type(loss).__name__
            raise ValueError(f"the train loss must be a scalar tensor, got {shape}")
        params = list(self.params.values())
        # Operations that were not drawn get no gradient, hence no decay and no momentum either.
        grads = torch.autograd.grad(loss, params, allow_unused=True)
        present = [k for k, g in enumerate(grads) if g is not None]
        averaged = [grads[k] for k in present]
        if distributed.world() > 1:
            averaged = distributed.mean(averaged)
        return loss.detach(), [params[k] for k in present], averaged

    def _weight_step(self, train_loss: NetLoss) -> Tensor:
        loss, params, grads = self.weight_gradient(train_loss)
        for p, g in zip(params, grads, strict=True):
            p.grad = g
        limit = self.clip_norm if self.clip_norm is not None else math.inf
        size = nn.utils.clip_grad_norm_(params, limit)
        if not torch.isfinite(size + loss):
            self.weight_optimizer.zero_grad(set_to_none=True)
            raise self.not_finite("the train loss or the weight gradient is NaN or infinite")
        self.weight_optimizer.step()
        self.weight_optimizer.zero_grad(set_to_none=True)
        return loss

    def fit(
        self,
        train_loader: Iterable[Any],
        valid_loader: Iterable[Any],
        loss: Callable[[Any, Any], Tensor],
        epochs: int,
        progress: bool = True,
    ) -> SearchResult:
        """Search for `epochs` epochs with batches `(inputs ..., target)` and `loss(net(inputs ...),
        target)`.

        Raises:
            ValueError: batches of another form (then write your own loop with `pairs` and `step`).
        """
        if epochs < 1:
            raise ValueError(f"epochs must be at least 1, not {epochs}")
        per_epoch = len(train_loader) if hasattr(train_loader, "__len__") else None  # type: ignore[arg-type]
        self.epochs, self.steps_per_epoch = epochs, per_epoch
        self._set_learning_rate()
        with Progress("search", epochs, per_epoch, first_epoch=self.epoch, enabled=progress) as bar:
            while self.epoch < epochs:
                epoch, sums = self.epoch, {"train_loss": 0.0, "valid_loss": 0.0}
                count = 0
                for train_batch, valid_batch in self.pairs(train_loader, valid_loader):
                    report = self.step(
                        _supervised(loss, train_batch), _supervised(loss, valid_batch)
                    )
                    sums["train_loss"] += report.train_loss.item()
                    sums["valid_loss"] += (
                        report.valid_loss.item() if report.valid_loss is not None else math.nan
                    )
                    count += 1
                    bar.step(train_loss=report.train_loss)
                bar.epoch(
                    epoch, {name: total / count for name, total in sums.items() if total == total}
                )
        return self.result()

    def expected_cost(self) -> float:
        """The expected cost of the alphas as they stand, without noise. ValueError for a search
        without a cost."""
        if self.costs is None:
            raise ValueError(
                "this search has no cost: give Search(..., cost=ExpectedCost(...), example=inputs)"
            )
        tables = {
            name: self.relaxation.probabilities(alpha.detach().double())
            for name, alpha in self.alphas.items()
        }
        return self.costs.expected(tables).item()

    def result(self, budget: float | None = None) -> SearchResult:
        """The decision that the alphas stand for now.

        Args:
            budget: of a search with a cost, in the unit of the cost: the best architecture within
                it. By default the budget of the cost, if it has one.

        Raises:
            ValueError: no architecture is within the budget (the cheapest is named); a budget
                without a cost.
        """
        if budget is not None or (self.cost is not None and self.cost.is_budget):
            return self.results(1, budget)[0]
        decision = self.supernet.decide(self.relaxation)
        return SearchResult(
            decision,
            self.supernet,
            None if self.costs is None else self.supernet.cost_of(decision, self.costs),
        )

    def results(self, number: int, budget: float | None = None) -> list[SearchResult]:
        """The `number` most probable architectures within a budget, the most probable first, or as
        many as there are.

        They are candidates: train each for a short time from fresh weights and keep the best on
        held-out data, as the authors of DARTS let the results of several searches compete (arXiv
        1806.09055, section 3).

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
        if self.cost is None or self.costs is None:
            raise ValueError(
                "a budget needs costs: give Search(..., cost=ExpectedCost(...), example=inputs)"
            )
        if budget is None:
            if not self.cost.is_budget:
                raise ValueError(
                    "the cost of this search has no budget: say within which, results(number, budget=...)"
                )
            budget = self.cost.limit
        found = self.supernet.decide_within(self.relaxation, self.costs, budget, number)
        return [
            SearchResult(decision, self.supernet, self.supernet.cost_of(decision, self.costs))
            for decision in found
        ]

    def evaluation_draw(self) -> Draw:
        """The noise-free mixture, for evaluating the supernet."""
        return Draw.dense(
            {name: self.relaxation.probabilities(a.detach()) for name, a in self.alphas.items()}
        )

    # ---- state -----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Everything that the search is: tensors and plain values only, so it loads with
        `weights_only=True`."""
        initial = getattr(self.supernet, "initial", None)
        return {
            "supernet": self.supernet.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "epoch": self.epoch,
            "epochs": self.epochs,
            "steps": self.steps,
            "steps_before_epoch": self.steps_before_epoch,
            "baseline": self.baseline,
            "seed": self.seed,
            "valid_drawn": self._valid_drawn,
            "random_state": random_state(self.device),
            **({"initial": dict(initial)} if initial is not None else {}),
            **({"cost": self.cost_state.state_dict()} if self.cost is not None else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a state from `state_dict`, random state included.

        A validation iterator is brought forward by counting batches, which repeats the original
        order where the loader yields the same batches each time it is iterated.

        Raises:
            ValueError: the state is of another network.
        """
        missing = {
            "supernet",
            "weight_optimizer",
            "alpha_optimizer",
            "epoch",
            "steps",
            "random_state",
        } - state.keys()
        if missing:
            raise ValueError(
                f"this is not the state of a Search: it lacks {', '.join(sorted(missing))}"
            )
        try:
            self.supernet.load_state_dict(state["supernet"])
            self.weight_optimizer.load_state_dict(state["weight_optimizer"])
            self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        except (RuntimeError, KeyError, ValueError) as error:
            raise ValueError(f"the state is of another network or optimiser: {error}") from error
        self.epoch, self.epochs, self.steps = state["epoch"], state["epochs"], state["steps"]
        self.steps_before_epoch, self.baseline = state["steps_before_epoch"], state["baseline"]
        self.seed = state["seed"]
        self._valid, self._valid_drawn = None, state["valid_drawn"]
        if self.cost is not None:
            self.cost_state = CostState(**state.get("cost", {}))
        if "initial" in state and isinstance(self.supernet, ModuleSupernet):
            self.supernet.initial = dict(state["initial"])
        set_random_state(state["random_state"], self.device)

    # ---- inside ----------------------------------------------------------------------------------

    def _set_learning_rate(self) -> None:
        if not isinstance(self.settings, WeightOptimizer) or self.epochs is None:
            return
        moment = float(self.epoch)
        if self.settings.per_iteration:
            if not self.steps_per_epoch:
                raise ValueError(
                    "a learning rate that falls with every step needs the length of an epoch: "
                    "Search(..., steps_per_epoch=N)"
                )
            moment += min(1.0, (self.steps - self.steps_before_epoch) / self.steps_per_epoch)
        for group in self.weight_optimizer.param_groups:
            group["lr"] = self.settings.lr_at(
                min(moment, self.epochs), self.epochs, self.warmup_epochs
            )

    def _noise(self, stream: int) -> Tensors:
        # A pure function of (seed, step): nothing to save, and every rank samples the same
        # architecture.
        return self.relaxation.noise(self.alphas, generator_for(self.seed, stream, self.steps))

    def _draw(self, alphas: Mapping[str, Tensor], noise: Tensors) -> Draw:
        return self.relaxation.draw(alphas, noise, self.progress)

    def _autocast(self) -> AbstractContextManager[Any]:
        return autocast(self.precision, self.device)

    def _closure(self, loss: NetLoss, noise: Tensors) -> Loss:
        """`(params, alphas) -> loss` for probing passes: buffers are copies, so running statistics
        stay as they are."""

        def evaluate(params: Tensors, alphas: Tensors) -> Tensor:
            tensors = self._with_own_buffers(
                {**params, **{f"alphas.{name}": a for name, a in alphas.items()}}
            )
            with self._autocast():
                return loss(BoundNet(self.supernet, self._draw(alphas, noise), tensors))

        return evaluate

    def _with_own_buffers(self, tensors: Tensors) -> Tensors:
        named = dict(self.supernet.named_buffers())
        if self.device.type == "cuda":  # a few launches instead of one for each buffer
            return tensors | dict(zip(named, copies(list(named.values())), strict=True))
        return tensors | {name: buffer.clone() for name, buffer in named.items()}

    def inner_step(self) -> SGDStep:
        """The coming weight step, read off the optimiser. ValueError where it is not plain SGD."""
        optimizer, method = self.weight_optimizer, type(self.gradient).__name__
        if not isinstance(optimizer, torch.optim.SGD) or len(optimizer.param_groups) != 1:
            raise ValueError(
                f"{method} looks through the weight step and needs torch.optim.SGD with one parameter group, not "
                f"{type(optimizer).__name__} with {len(optimizer.param_groups)}; FirstOrder() works with any optimiser"
            )
        group = optimizer.param_groups[0]
        if group["dampening"] or group["maximize"]:
            raise ValueError(
                f"{method} looks through the weight step and supports neither dampening nor maximize"
            )
        found = {
            name: optimizer.state[p].get("momentum_buffer")
            for name, p in self.params.items()
            if p in optimizer.state
        }
        return SGDStep(
            lr=group["lr"],
            momentum=group["momentum"],
            weight_decay=group["weight_decay"],
            buffers={name: buffer for name, buffer in found.items() if buffer is not None},
            nesterov=group["nesterov"],
            clip_norm=self.clip_norm if self.gradient.clips_inner_step else None,
        )

    def _next_valid(self, loader: Iterable[Any]) -> Any:
        if self._valid is None or self._valid[0] is not loader:
            skip = 0
            if self._valid is None and self._valid_drawn and hasattr(loader, "__len__"):
                skip = self._valid_drawn % max(1, len(loader))  # type: ignore[arg-type]
            iterator = iter(loader)
            for _ in range(skip):
                next(iterator)
            self._valid = (loader, iterator)
        self._valid_drawn += 1
        try:
            return next(self._valid[1])
        except StopIteration:
            self._valid = (loader, iter(loader))
        try:
            return next(self._valid[1])
        except StopIteration:
            raise ValueError("the validation loader yields no batch") from None

    def not_finite(self, what: str) -> NonFiniteError:
        return NonFiniteError(
            f"step {self.steps} (epoch {self.epoch}): {what}; the update was not made. Try a smaller learning rate, "
            "gradient clipping (clip_norm), precision='fp32', and check the data for NaN"
        )


def check_samples(relaxation: Relaxation, gradient: ArchitectureGradient) -> None:
    """ValueError where a gradient learns from sampled networks and the relaxation samples none."""
    if not gradient.num_samples:
        return
    alphas = {"any": torch.zeros(1, 2)}
    if relaxation.path(alphas, relaxation.noise(alphas, torch.Generator()), 0.0).log_prob is None:
        learner, sampler = type(gradient).__name__, type(relaxation).__name__
        raise ValueError(
            f"{learner} learns from sampled networks, and {sampler} samples none; use BinaryGates() or "
            "GumbelSoftmax(hard=True)"
        )


def _costs(supernet: Supernet, cost: ExpectedCost, example: Any, device: torch.device) -> Costs:
    """The costs of the operations. ValueError where the budget cannot be kept."""
    table = cost.latency_table()
    if example is None and not (table is not None and table.is_mobile):
        raise ValueError(
            f"a cost needs example inputs of the network: Search(..., cost={cost!r}, example=inputs)"
        )
    inputs = _to_device(
        tuple(example) if isinstance(example, (tuple, list)) else (example,), device
    )
    costs = supernet.costs(cost.quantity, inputs, table)
    if table is not None:
        costs = costs.noted(*device_notes(table, Device.here(device)))
    if cost.is_budget and (cheapest := supernet.cheapest(costs)) > cost.limit:
        raise ValueError(
            f"{cost.limit_name}={cost.limit:g} cannot be kept: the cheapest architecture of this space costs "
            f"{cheapest:g} {costs.unit}"
        )
    for note in costs.notes:
        warnings.warn(note, stacklevel=3)
    return costs


def _supervised(loss: Callable[[Any, Any], Tensor], batch: Any) -> NetLoss:
    if not isinstance(batch, (tuple, list)) or len(batch) < 2:
        raise ValueError(
            f"fit needs batches of the form (inputs ..., target), got a {type(batch).__name__}; write your own loop "
            "with pairs and step"
        )
    *inputs, target = batch
    return lambda net: loss(net(*inputs), target)


def _to_device(batch: Any, device: torch.device) -> Any:
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: _to_device(item, device) for key, item in batch.items()}
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_to_device(item, device) for item in batch))
    if isinstance(batch, (tuple, list)):
        return type(batch)(_to_device(item, device) for item in batch)
    return batch
