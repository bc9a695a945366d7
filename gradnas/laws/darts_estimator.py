"""What `DARTSRegressor` and `DARTSClassifier` share: settings, training, and what is shown of it.

Legend: K restarts, N rows, D features, C outputs or classes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from sklearn.base import BaseEstimator
from sklearn.utils import check_random_state

from gradnas.laws.darts_laws import DerivedLaws, Refine, Sampling, derived_laws
from gradnas.laws.darts_training import DARTSSettings, DARTSTraining, Output
from gradnas.laws.discover import on_one_cpu_thread
from gradnas.laws.engine.data import EXACT, Loss
from gradnas.laws.engine.graph import EquationGraph
from gradnas.laws.engine.poles import Box, has_pole
from gradnas.laws.fitted import FittedLaws
from gradnas.laws.fitting import FormulaModel, Rows
from gradnas.laws.formula import Formula, Kind
from gradnas.laws.law import Law, Laws
from gradnas.laws.outputs import Outputs
from gradnas.laws.primitives import Primitive
from gradnas.laws.rows import feature_names
from gradnas.laws.studied import StudiedLaws
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer

# Of the reference.
WORDS = ("none", "add", "subtract", "linear", "linear_logistic", "mult", "linear_relu")
KEPT_ROWS = 1000


class DARTSEstimator(StudiedLaws, BaseEstimator):
    """What both estimators share: their settings, the training, and what is shown of it."""

    max_complexity = None  # the laws are those of the restarts, chosen by their loss
    n_features_in_: int
    restart_: int
    outputs_: Outputs

    def __init__(
        self,
        *,
        nodes: int = 2,
        primitives: Sequence[str | Primitive] = WORDS,
        kinds: Sequence[Kind] = ("sum",),
        fair: bool = False,
        order: Literal[1, 2] = 1,
        restarts: int = 1,
        epochs: int = 100,
        alpha_updates: int = 1,
        param_updates: int = 10,
        batch_size: int | None = 64,
        validation: float = 0.0,
        alpha_lr: float = 0.03,
        alpha_decay: float = 1e-4,
        fewer_params: float = 3e-4,
        fewer_operations: float = 0.0,
        fair_weight: float = 1.0,
        param_lr: float = 0.025,
        param_lr_end: float = 0.01,
        momentum: float = 0.9,
        param_decay: float = 3e-4,
        clip_norm: float | None = 5.0,
        output_weights: bool = False,
        output_bias: bool = False,
        output_decay: float = 1e-2,
        sampling: Sampling = "max",
        refine: Refine = "least_squares",
        refine_updates: int = 100,
        checkpoint: str | Path | None = None,
        checkpoint_every: int = 10,
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.nodes = nodes
        self.primitives = primitives
        self.kinds = kinds
        self.fair = fair
        self.order = order
        self.restarts = restarts
        self.epochs = epochs
        self.alpha_updates = alpha_updates
        self.param_updates = param_updates
        self.batch_size = batch_size
        self.validation = validation
        self.alpha_lr = alpha_lr
        self.alpha_decay = alpha_decay
        self.fewer_params = fewer_params
        self.fewer_operations = fewer_operations
        self.fair_weight = fair_weight
        self.param_lr = param_lr
        self.param_lr_end = param_lr_end
        self.momentum = momentum
        self.param_decay = param_decay
        self.clip_norm = clip_norm
        self.output_weights = output_weights
        self.output_bias = output_bias
        self.output_decay = output_decay
        self.sampling = sampling
        self.refine = refine
        self.refine_updates = refine_updates
        self.checkpoint = checkpoint
        self.checkpoint_every = checkpoint_every
        self.random_state = random_state

    # ---- the training ----------------------------------------------------------------------------

    def _train(self, rows: Rows, output: Output, num_outputs: int) -> list[DerivedLaws]:
        """Train, go on from a checkpoint where there is one, and derive the laws."""
        settings = self._darts_settings(rows.x_ND.shape[1], output, num_outputs)
        target_N = rows.y_N.long() if output == "classes" else rows.y_N
        save = None if self.checkpoint is None else Path(self.checkpoint)
        with on_one_cpu_thread():
            training = DARTSTraining(settings, rows.x_ND, target_N, rows.w_N)
            if save is not None and save.exists():
                training.load(save)
            training.run(save, self.checkpoint_every)
            found = derived_laws(training, rows, self.sampling, self.refine, self.refine_updates)
        self._training_state = training
        dropped = int((~training.alive_K).sum())
        if dropped:
            self._notes.append(
                f"{dropped} of {settings.restarts} restarts stopped being finite and were left out"
            )
        return found

    def _darts_settings(self, features: int, output: Output, num_outputs: int) -> DARTSSettings:
        """The settings, checked.

        Raises:
            ValueError: what no training can have.
        """
        if self.order not in (1, 2):
            raise ValueError(f"order is 1 (first order) or 2 (unrolled), not {self.order!r}")
        if self.sampling not in ("max", "sample"):
            raise ValueError(f"sampling is 'max' or 'sample', not {self.sampling!r}")
        if self.refine not in ("least_squares", "sgd", "none"):
            raise ValueError(f"refine is 'least_squares', 'sgd' or 'none', not {self.refine!r}")
        counts = {
            "restarts": self.restarts,
            "epochs": self.epochs,
            "alpha_updates": self.alpha_updates,
            "param_updates": self.param_updates,
            "checkpoint_every": self.checkpoint_every,
            "batch_size": 1 if self.batch_size is None else self.batch_size,
        }
        for name, value in counts.items():
            if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
                raise ValueError(f"{name} must be a whole number of at least 1, not {value!r}")
        if not 0.0 <= self.validation < 0.9:
            raise ValueError(f"validation is a share from 0 to 0.9, not {self.validation!r}")
        if isinstance(self.primitives, str):
            raise ValueError(f"primitives must be a list of words, not {self.primitives!r}")
        seed = int(check_random_state(self.random_state).randint(2**31 - 1))
        return DARTSSettings(
            space=EquationGraph(features, self.nodes, tuple(self.primitives), tuple(self.kinds)),
            output=output,
            num_outputs=num_outputs,
            fair=bool(self.fair),
            restarts=self.restarts,
            epochs=self.epochs,
            alpha_updates=self.alpha_updates,
            param_updates=self.param_updates,
            batch_size=self.batch_size,
            weights=WeightOptimizer(
                lr=self.param_lr,
                lr_end=self.param_lr_end,
                momentum=self.momentum,
                weight_decay=self.param_decay,
                clip_norm=self.clip_norm,
            ),
            alphas=AlphaOptimizer(lr=self.alpha_lr, weight_decay=self.alpha_decay),
            output_decay=self.output_decay,
            fewer_params=self.fewer_params,
            fewer_operations=self.fewer_operations,
            fair_weight=self.fair_weight,
            # The classes of a softmax differ in nothing else.
            output_weights=self.output_weights or output == "classes",
            output_bias=self.output_bias or output == "classes",
            validation=self.validation,
            order=self.order,
            seed=seed,
        )

    def _keep(
        self, outputs: Outputs, fronts: list[Laws], x_ND: np.ndarray, y_NK: np.ndarray, w: Any
    ) -> None:
        self.outputs_ = outputs
        self._formulas = {}
        self.laws_ = fronts
        rows = np.unique(np.linspace(0, len(x_ND) - 1, KEPT_ROWS).astype(int))
        self._kept = (x_ND[rows], y_NK[rows])
        self._keep_training(x_ND, y_NK, w)

    def _fitted(self, name: str) -> FittedLaws:
        from gradnas.laws.rows import validation

        validation.check_is_fitted(
            self, "laws_", msg=f"{name}: this %(name)s is not fitted yet; call 'fit' first"
        )
        return FittedLaws(
            fronts=self.laws_,
            names=feature_names(self),
            outputs=self.outputs_,
            max_complexity=None,
            written=self._formulas,
            rows_ND=self._kept[0],
        )

    def _model_of(self, law: Law) -> FormulaModel:
        # What is fixed at 1 and 0 stays so in a refit.
        return FormulaModel(law.formula, law.primitives, self.output_weights, self.output_bias)

    # ---- what is shown ---------------------------------------------------------------------------

    @property
    def history_(self) -> dict[str, np.ndarray]:
        """What happened: "loss" and "alpha_loss" `(epochs, K)`, and the alphas after every epoch.

        "edges" is `(epochs, K, edges, primitives)`, in the order of `space_.edges` and
        `space_.words`; "nodes" those of the kinds of nodes, and "sides" those of a ratio's sides.
        """
        self._fitted("history_")
        history = self._training_state.history
        found = {
            "loss": torch.stack(history.loss_TK).numpy(),
            "alpha_loss": torch.stack(history.alpha_loss_TK).numpy(),
        }
        for name, values in history.alphas.items():
            found[name] = torch.stack(values).numpy()
        return found

    @property
    def space_(self) -> EquationGraph:
        """The graph that was searched."""
        self._fitted("space_")
        return self._training_state.settings.space

    @property
    def equations_(self) -> tuple[Any, ...]:
        """The chosen laws, one for each output, as sympy expressions."""
        return self._fitted("equations_").expressions(None)

    @property
    def equation_(self) -> Any:
        """The chosen law as a sympy expression in the names of the features."""
        equations = self._fitted("equation_").expressions(None)
        if len(equations) != 1:
            raise AttributeError(f"there are {len(equations)} laws; they are in equations_")
        return equations[0]

    @property
    def notes_(self) -> tuple[str, ...]:
        """What was done to the data or left out, in sentences."""
        self._fitted("notes_")
        return tuple(dict.fromkeys(self._notes))

    def mixture_(self, restart: int | None = None) -> list[dict[str, Any]]:
        """The edges of the mixture: from, to, and the probability of every primitive.

        Args:
            restart: by default the one of the chosen law.
        """
        self._fitted("mixture_")
        from gradnas.laws.darts_pictures import mixture_edges

        return mixture_edges(self._training_state, self._restart(restart), feature_names(self))

    def plot_history(self, restart: int | None = None, path: str | Path | None = None) -> Any:
        """Losses and alphas by epoch, as a matplotlib figure.

        Args:
            restart: whose alphas; by default those of the chosen law's.
            path: an SVG, PNG or PDF file to write as well.
        """
        from gradnas.laws.darts_pictures import history_figure
        from gradnas.laws.pictures import save_figure

        self._fitted("plot_history")
        names = feature_names(self)
        figure = history_figure(self._training_state, self._restart(restart), names)
        return figure if path is None else save_figure(figure, path)

    def draw_mixture(self, restart: int | None = None, path: str | Path | None = None) -> Any:
        """The mixture as a graph, its edges with their probabilities; arguments as before.

        The derived graph's picture is `draw()`.
        """
        from gradnas.laws.darts_pictures import mixture_figure
        from gradnas.laws.pictures import save_figure

        self._fitted("draw_mixture")
        names = feature_names(self)
        figure = mixture_figure(self._training_state, self._restart(restart), names)
        return figure if path is None else save_figure(figure, path)

    def _restart(self, restart: int | None) -> int:
        count = self._training_state.settings.restarts
        if restart is None:
            return self.restart_
        if not 0 <= restart < count:
            raise ValueError(f"there is no restart {restart}: there are {count}, counted from 0")
        return restart


DARTS_NAMES = frozenset(DARTSEstimator.__init__.__annotations__) - {"return"}


def front_of_restarts(
    found: Sequence[DerivedLaws], rows: Rows, link: Loss, training: DARTSTraining, c: int
) -> Laws:
    """The laws of the restarts for output c, each better than all simpler ones."""
    table = training.settings.space.table
    box = Box.around(rows.x_ND.T, rows.y_N)
    laws: list[Law] = []
    for one in found:
        formula = one.formulas[c]
        law = Law(
            formula=formula,
            complexity=formula.complexity,
            train_error=one.loss,
            valid_error=math.nan,
            description_length=math.nan,
            agreement=1,
            loss=link,
            primitives=dict(table),
            has_pole=has_pole(formula, box, table),
            rounding=EXACT * rows.spread,
        )
        laws.append(law)
    if not laws:
        mean = float((rows.w_N * rows.y_N).mean())
        bias = math.log(mean / (1.0 - mean)) if link == "logistic" else mean
        formula = Formula(rows.x_ND.shape[1], (), (), bias or 1e-12)
        law = Law(formula, 1, rows.spread, math.nan, math.nan, 1, link, dict(table))
        return Laws(front=(law,), best=0)
    best = 0
    chosen = min(laws, key=lambda law: law.train_error)
    front: list[Law] = []
    lowest = math.inf
    for law in sorted(laws, key=lambda law: (law.complexity, law.train_error)):
        if law is chosen or law.train_error < lowest:
            front.append(replace(law))
            lowest = min(lowest, law.train_error)
            if law is chosen:
                best = len(front) - 1
    return Laws(front=tuple(front), best=best)
