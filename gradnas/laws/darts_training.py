"""The training of DARTS for equations: alphas and parameters in turn, many restarts at once.

Legend: K restarts, C outputs or classes, J nodes, E edges, O primitives, N rows, D features.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from gradnas.files import write_atomically
from gradnas.gradients import FirstOrder, SGDStep, Unrolled
from gradnas.gradients.base import Tensors
from gradnas.laws.engine.graph import EquationGraph
from gradnas.laws.engine.supernets import assign, gradients_of, per_restart
from gradnas.laws.primitives import meaning
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.randomness import generator_for
from gradnas.relaxations import Relaxation, Sigmoid, Softmax

Output = Literal["real", "probability", "classes"]
WEIGHTS = 11  # streams of random numbers
BATCHES = 12
SPLIT = 13
VERSION = 1
START = 0.4  # of the constants that supernets of the engine begin with


@dataclass(frozen=True)
class DARTSSettings:
    """See `gradnas.laws.darts.DARTSRegressor`."""

    space: EquationGraph
    output: Output
    num_outputs: int
    fair: bool
    restarts: int
    epochs: int
    alpha_updates: int
    param_updates: int
    batch_size: int | None
    weights: WeightOptimizer
    alphas: AlphaOptimizer
    output_decay: float
    fewer_params: float
    fewer_operations: float
    fair_weight: float
    output_weights: bool
    output_bias: bool
    validation: float
    order: int
    seed: int

    @property
    def relaxation(self) -> Relaxation:
        """Mixing weights from alphas."""
        return Sigmoid() if self.fair else Softmax()


class Mixture(nn.Module):
    """K supernets, each with an output layer: features `(D, N)` to values `(K, C, N)`."""

    def __init__(self, settings: DARTSSettings) -> None:
        super().__init__()
        generator = generator_for(settings.seed, WEIGHTS)
        self.net = settings.space.supernet(settings.restarts, generator)
        with torch.no_grad():
            # Of the size that the reference begins with: here nothing solves for the output layer.
            self.net.a.mul_(START)
            self.net.b.mul_(START)
        shape_KCJ = (settings.restarts, settings.num_outputs, settings.space.nodes)
        ones_KCJ = torch.ones(shape_KCJ)
        if settings.num_outputs > 1:
            # Classes with the same weights would be the same class.
            ones_KCJ = torch.randn(shape_KCJ, generator=generator)
        self.weight = nn.Parameter(ones_KCJ)
        self.bias = nn.Parameter(torch.zeros(shape_KCJ[:2]))

    def forward(self, x_DN: Tensor, draw: Any) -> Tensor:
        node_KJN = self.net(x_DN, draw=draw)
        return self.weight @ node_KJN + self.bias.unsqueeze(-1)


@dataclass
class History:
    """What happened, epoch by epoch.

    Attributes:
        loss_TK: loss of the parameters' last batch of each epoch.
        alpha_loss_TK: loss of the alphas' last batch, with the terms that FairDARTS adds.
        alphas: by name `(T, K, ...)` the alphas at the end of each epoch.
    """

    loss_TK: list[Tensor] = field(default_factory=list)
    alpha_loss_TK: list[Tensor] = field(default_factory=list)
    alphas: dict[str, list[Tensor]] = field(default_factory=dict)


class DARTSTraining:
    """One training; `run` goes on from wherever it is."""

    def __init__(self, settings: DARTSSettings, x_ND: Tensor, y_N: Tensor, w_N: Tensor) -> None:
        self.settings = settings
        self.x_DN = x_ND.T.float().contiguous()
        self.y_N = y_N if settings.output == "classes" else y_N.float()
        self.w_N = w_N.float()
        self.mixture = Mixture(settings)
        self.alphas: dict[str, Tensor] = dict(self.mixture.net.alphas.items())
        self.params: dict[str, Tensor] = {
            "net.a": self.mixture.net.a,
            "net.b": self.mixture.net.b,
        }
        if settings.output_weights:
            self.params["weight"] = self.mixture.weight
        if settings.output_bias:
            self.params["bias"] = self.mixture.bias
        self.weight_optimizer = settings.weights.build(self.params.values())  # type: ignore[arg-type]
        self.alpha_optimizer = settings.alphas.build(self.alphas.values())  # type: ignore[arg-type]
        self.alive_K = torch.ones(settings.restarts, dtype=torch.bool)
        self.epoch = 0
        self.history = History()
        order = torch.randperm(len(y_N), generator=generator_for(settings.seed, SPLIT))
        held = int(settings.validation * len(y_N))
        # Without held-out rows both levels see all, as in the reference.
        self.valid_rows = order[:held].sort().values if held else order.sort().values
        self.train_rows = order[held:].sort().values
        self.num_params_O = torch.tensor(
            [0 if word == "none" else 1 for word in settings.space.words], dtype=torch.float32
        )
        for o, word in enumerate(settings.space.words):
            if word != "none":
                _, fits_a, fits_b = meaning(word)
                self.num_params_O[o] += fits_a + fits_b
        self.counts_O = (self.num_params_O > 0).float()

    # ---- losses ----------------------------------------------------------------------------------

    def losses(self, params: Tensors, alphas: Tensors, rows: Tensor) -> Tensor:
        """(K,) losses at some rows."""
        draw = self.settings.relaxation.draw(alphas, {}, 0.0)
        value_KCN = functional_call(self.mixture, params, (self.x_DN[:, rows], draw))
        w_N = self.w_N[rows]
        y_N = self.y_N[rows]
        if self.settings.output == "classes":
            target_KN = y_N.expand(len(value_KCN), -1)
            loss_KN = F.cross_entropy(value_KCN, target_KN, reduction="none")
        elif self.settings.output == "probability":
            loss_KN = F.softplus(value_KCN[:, 0]) - y_N * value_KCN[:, 0]
        else:
            loss_KN = (value_KCN[:, 0] - y_N) ** 2
        return (w_N * loss_KN).mean(-1)

    def _fair(self, alphas: Tensors) -> Tensor:
        """(K,) what FairDARTS adds: minus the distance of the strengths from one half."""
        edges_KEO = torch.sigmoid(alphas["edges"])
        return -self.settings.fair_weight * ((edges_KEO - 0.5) ** 2).flatten(1).mean(1)

    def _alive_sum(self, loss_K: Tensor) -> Tensor:
        return torch.where(self.alive_K, loss_K, 0.0).sum()

    # ---- steps -----------------------------------------------------------------------------------

    def run(self, save: Path | None, every: int, on_epoch: Any = None) -> None:
        """All epochs that are left, with a checkpoint every so many, and at the end."""
        while self.epoch < self.settings.epochs:
            self._train_epoch()
            ended = self.epoch == self.settings.epochs
            if save is not None and (ended or self.epoch % every == 0):
                self.save(save)
            if on_epoch is not None:
                on_epoch(self.epoch, self.history.loss_TK[-1])

    def _train_epoch(self) -> None:
        settings = self.settings
        lr = settings.weights.lr_at(self.epoch, settings.epochs)
        for group in self.weight_optimizer.param_groups:
            group["lr"] = lr
        alpha_loss_K = torch.full((settings.restarts,), torch.nan)
        for k in range(settings.alpha_updates):
            alpha_loss_K = self._alpha_step(k, lr)
        loss_K = torch.full((settings.restarts,), torch.nan)
        for k in range(settings.param_updates):
            loss_K = self._weight_step(k)
        self.epoch += 1
        history = self.history
        history.loss_TK.append(loss_K.detach().clone())
        history.alpha_loss_TK.append(alpha_loss_K.detach().clone())
        for name, alpha in self.alphas.items():
            history.alphas.setdefault(name, []).append(alpha.detach().clone())

    def _batch(self, rows: Tensor, kind: int, step: int) -> Tensor:
        """Rows of one step, by counter: a training that goes on sees the same ones."""
        size = self.settings.batch_size
        if size is None or size >= len(rows):
            return rows
        number = 2 * (self.epoch * 1_000_000 + step) + kind
        generator = generator_for(self.settings.seed, BATCHES, number)
        return rows[torch.randperm(len(rows), generator=generator)[:size]]

    def _alpha_step(self, step: int, lr: float) -> Tensor:
        settings = self.settings
        train_rows = self._batch(self.train_rows, 0, 500_000 + step)
        valid_rows = self._batch(self.valid_rows, 1, step)
        last: list[Tensor] = []

        def train(params: Tensors, alphas: Tensors) -> Tensor:
            return self._alive_sum(self.losses(params, alphas, train_rows))

        def valid(params: Tensors, alphas: Tensors) -> Tensor:
            loss_K = self.losses(params, alphas, valid_rows)
            if settings.fair:
                loss_K = loss_K + self._fair(alphas)
            last.append(loss_K.detach())
            return self._alive_sum(loss_K)

        inner = None
        gradient: FirstOrder | Unrolled = FirstOrder()
        if settings.order == 2:
            gradient = Unrolled(mode="exact")
            inner = SGDStep(lr, settings.weights.momentum, settings.weights.weight_decay)
        grads = gradient(train, valid, self.params, self.alphas, inner)
        # One large gradient of the first steps would hold Adam back for thousands of steps.
        assign(self.alphas, grads, self.alive_K, settings.weights.clip_norm)
        self.alpha_optimizer.step()
        with torch.no_grad():
            # Every operation but `none` loses a little in each step, more so with constants.
            cost_O = settings.fewer_params * self.num_params_O
            cost_O = cost_O + settings.fewer_operations * self.counts_O
            self.alphas["edges"].sub_(settings.alphas.lr * cost_O)
        return last[-1]

    def _weight_step(self, step: int) -> Tensor:
        settings = self.settings
        rows = self._batch(self.train_rows, 0, step)
        still = {name: alpha.detach() for name, alpha in self.alphas.items()}
        loss_K = self.losses(self.params, still, rows)
        grads = gradients_of(self._alive_sum(loss_K), self.params)
        self.alive_K &= torch.isfinite(loss_K.detach())
        for grad in grads.values():
            self.alive_K &= torch.isfinite(grad.flatten(1)).all(1)
        assign(self.params, grads, self.alive_K, settings.weights.clip_norm)
        before = {name: tensor.detach().clone() for name, tensor in self.params.items()}
        self.weight_optimizer.step()
        with torch.no_grad():
            for name, tensor in self.params.items():
                if name in ("weight", "bias"):
                    # On top of the decay of all weights.
                    rate = self.weight_optimizer.param_groups[0]["lr"] * settings.output_decay
                    tensor.sub_(rate * tensor)
                # A restart that is over stays where it was: neither momentum nor decay moves it.
                alive = per_restart(self.alive_K, tensor)
                tensor.copy_(torch.where(alive, tensor, before[name]))
        return loss_K.detach()

    # ---- checkpoints -----------------------------------------------------------------------------

    @property
    def fingerprint(self) -> str:
        """Of the settings (but for the number of epochs) and the data."""
        settings = {**vars(self.settings), "epochs": None}
        digest = hashlib.sha256(repr(sorted(settings.items())).encode())
        for tensor in (self.x_DN, self.y_N, self.w_N):
            digest.update(tensor.contiguous().numpy().tobytes())
        return digest.hexdigest()

    def save(self, path: Path) -> None:
        """Everything that the next epoch needs."""
        import io

        history = self.history
        state = {
            "version": VERSION,
            "fingerprint": self.fingerprint,
            "epoch": self.epoch,
            "mixture": self.mixture.state_dict(),
            "weight_optimizer": self.weight_optimizer.state_dict(),
            "alpha_optimizer": self.alpha_optimizer.state_dict(),
            "alive_K": self.alive_K,
            "loss_TK": torch.stack(history.loss_TK),
            "alpha_loss_TK": torch.stack(history.alpha_loss_TK),
            "alphas": {name: torch.stack(values) for name, values in history.alphas.items()},
        }
        buffer = io.BytesIO()
        torch.save(state, buffer)
        write_atomically(path, buffer.getvalue())

    def load(self, path: Path) -> None:
        """Go on from a checkpoint.

        Raises:
            ValueError: it is no checkpoint, or of other data or settings.
        """
        try:
            state = torch.load(path, weights_only=True)
        except Exception as error:
            raise ValueError(f"{path} is no checkpoint of this search: {error}") from error
        if not isinstance(state, dict) or state.get("version") != VERSION:
            raise ValueError(f"{path} is no checkpoint of this search")
        if state["fingerprint"] != self.fingerprint:
            raise ValueError(
                f"{path} is of other data or settings: take another file, or remove it to begin "
                "again (more epochs are allowed)"
            )
        self.mixture.load_state_dict(state["mixture"])
        self.weight_optimizer.load_state_dict(state["weight_optimizer"])
        self.alpha_optimizer.load_state_dict(state["alpha_optimizer"])
        self.alive_K = state["alive_K"]
        self.epoch = state["epoch"]
        self.history = History(
            loss_TK=list(state["loss_TK"]),
            alpha_loss_TK=list(state["alpha_loss_TK"]),
            alphas={name: list(values) for name, values in state["alphas"].items()},
        )
