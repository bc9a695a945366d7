"""The configurations of a search and of a training on images."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import ClassVar, Literal

from gradnas.architectures.base import Architecture
from gradnas.config import check_numbers
from gradnas.data import DataConfig, ImageData
from gradnas.data.base import sorted_by_class
from gradnas.gradients import ArchitectureGradient, Unrolled
from gradnas.objectives.cost import ExpectedCost
from gradnas.objectives.terms import AlphaTerm
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.relaxations import Relaxation, Softmax
from gradnas.search.health import check_guard
from gradnas.selections import Selection, Strongest
from gradnas.settings.formats import Guard, Precision
from gradnas.spaces import ConvCell, ImageSpace
from gradnas.stabilizers import Stabilizer
from gradnas.tasks.base import ImageSizes, SearchSettings, TrainSettings
from gradnas.tasks.costs import located
from gradnas.tasks.division import Division
from gradnas.tasks.images.divided import divided, measured_on_the_rest
from gradnas.tasks.images.timed import timed_images
from gradnas.tasks.timed import Timed, Wanted

# Of sets that need not be read for this.
KNOWN_SIZES = {"digits": ImageSizes(1, 8, 10), "cifar10": ImageSizes(3, 32, 10)}


@dataclass(frozen=True)
class SearchConfig(SearchSettings):
    """A search run.

    Args:
        space, relaxation, gradient: what is searched, and how.
        terms: of the alphas alone, added to their loss.
        stabilizers: change how the weights learn.
        selection: how the decision is had in the end; the rounds of one that measures are the last
            of the `epochs`.
        train_fraction: share of the training images for the weights; the rest is for the alphas.
            Where the set brings a validation split with it, that is for the alphas, and all
            training images are for the weights.
        split_seed: None splits by file order, as the original does (images sorted by class are
            shuffled with `seed`); a number shuffles first.
        valid_per_class: hold out so many images of every class for the alphas instead (chosen by
            `split_seed`, or by `seed`); the rest is for the weights.
        valid_augment: augment the alphas' images too, as the original does.
        label_smoothing: of the weights' loss; that of the alphas has none.
        warmup_epochs: epochs at the start in which the alphas wait.
        alpha_every: the alphas take a step before every so many steps of the weights.
        alphas: None takes the settings that fit the relaxation.
        cost: an expected cost in the loss of the alphas, for one image of the data's size
            (milliseconds: for as many images as the latency table was measured with). The run
            folder gets a copy of the table.
        cost_image_size: side in pixels of the images that the cost is for, where the search runs on
            smaller ones; None: those of the data.
        max_steps: stop after so many steps, without evaluation (to try a setting out).
        checkpoint_cells: compute the inside of every cell again in backward: less memory, more
            time.
        capture: replay the steps of whole batches from a CUDA graph (see `CapturedStep`); CUDA
            only.
        threads, checkpoint_seconds: as in `TrainConfig`.
        candidates: so many of the likeliest architectures are measured at the end, within a tenth
            of the work of the search; None: 8, within 4.5%; 0: the result is not compared with
            anything.
        guard: what follows where the search becomes unhealthy: `"warn"` says so, `"stop"` ends it
            with the last decision that was good, `"off"` measures nothing that costs anything.
        recipe: the name of the recipe that it began with, which tells the training that follows.
    """

    takes_cost: ClassVar[bool] = True

    space: ImageSpace = field(default_factory=ConvCell)
    relaxation: Relaxation = field(default_factory=Softmax)
    gradient: ArchitectureGradient = field(default_factory=Unrolled)
    terms: tuple[AlphaTerm, ...] = ()
    stabilizers: tuple[Stabilizer, ...] = ()
    selection: Selection = field(default_factory=Strongest)
    data: DataConfig = field(default_factory=DataConfig)
    train_fraction: float = 0.5
    split_seed: int | None = None
    valid_per_class: int | None = None
    valid_augment: bool = False
    label_smoothing: float = 0.0
    epochs: int = 50
    warmup_epochs: int = 0
    alpha_every: int = 1
    max_steps: int | None = None
    batch_size: int = 64
    weights: WeightOptimizer = field(default_factory=WeightOptimizer)
    alphas: AlphaOptimizer | None = None
    cost: ExpectedCost | None = None
    cost_image_size: int | None = None
    precision: Precision = "fp32"
    checkpoint_cells: bool = False
    capture: bool = False
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 20.0
    candidates: int | None = None
    guard: Guard = "warn"
    recipe: str | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        check_guard(self.guard)
        if self.capture and self.label_smoothing:
            raise ValueError(
                "capture records one loss for weights and alphas: it cannot have label_smoothing"
            )

    def timed(self, wanted: Wanted) -> Timed:
        return timed_images(self.space, self._sizes(wanted.image_size), wanted)

    def _sizes(self, side: int | None) -> ImageSizes:
        """What its supernet is timed for, with another side if one is given."""
        source = self.data.source
        if source in KNOWN_SIZES:
            known = KNOWN_SIZES[source]
            return known._replace(side=side or self.data.image_size or known.side)
        data = self.data.load()
        return ImageSizes(data.in_channels, side or data.image_size, data.num_classes)

    def located(self, folder: Path) -> SearchConfig:
        return replace(super().located(folder), cost=located(self.cost, folder))

    def division_for(self, data: ImageData, seed: int) -> Division:
        split_seed = self.split_seed
        depends_on_seed = self.valid_per_class is not None or sorted_by_class(data.train)
        if split_seed is None and depends_on_seed:
            split_seed = seed
        return Division(self.train_fraction, split_seed, self.valid_per_class)

    def divided_as(self, division: Division) -> SearchConfig:
        return replace(
            self,
            train_fraction=division.train_fraction,
            split_seed=division.split_seed,
            valid_per_class=division.valid_per_class,
        )


@dataclass(frozen=True)
class TrainConfig(TrainSettings):
    """A training run.

    Args:
        space: the size of the network.
        genotype: what is trained, an architecture of that space.
        auxiliary, auxiliary_weight: a second classifier in training and its share of the loss.
        lr, lr_end: learning rate; `schedule` leads from the first towards the second over the
            epochs.
        schedule: `"cosine"`, `"linear"`, or `"exponential"` (times `gamma` after each epoch;
            `lr_end` is not used).
        warmup_epochs: epochs at the start with lr * (epoch + 1) / warmup_epochs (per iteration:
            from 0 to lr).
        per_iteration: the learning rate follows the schedule with every step, not with every epoch.
        nesterov: as in `torch.optim.SGD`.
        no_decay: what weight decay leaves out: `"norms"` (the scales and shifts of BatchNorm), or
            `"norms and biases"`.
        clip_norm: largest global L2 norm of the gradient, None for no clipping.
        drop_path: probability of dropping a path at the last epoch; epoch e of n has drop_path * e
            / n.
        valid_fraction: share of the training images that is held out and reported on each epoch;
            above 0, a validation split that the set brings with it is reported on instead.
        precision: `"bf16"` trains under autocast; `"tf32"` allows TF32 on a CUDA device, `"fp32"`
            does not.
        compile: `"default"` compiles the training step with `torch.compile` (minutes at the start,
            and a C++ compiler on the CPU), `"reduce-overhead"` also captures it in CUDA graphs;
            `"no"` for neither.
        accelerated: train on the kernels of `gradnas.accelerate` where there are some: on a CPU, in
            fp32, without `compile`. The numbers are the same up to rounding.
        random_cells: so many cells drawn at random are trained in the same way afterwards, each in
            a folder `random/K` of the run, so that a reader sees whether the search helped.
        max_steps: stop after so many steps, and evaluate (to try a setting out).
        threads: of the CPU; None leaves torch's default. A setting of the run, because sums depend
            on it in their last bits, and because one thread is faster for very small networks.
        checkpoint_seconds: at the most so much work is lost when the process is killed.
        division: train on the part of the training images that trains the weights of a search, and
            measure on the other part; the test images are not read.
    """

    space: ImageSpace
    genotype: Architecture
    data: DataConfig = field(default_factory=DataConfig)
    epochs: int = 600
    batch_size: int = 96
    auxiliary: bool = True
    auxiliary_weight: float = 0.4
    label_smoothing: float = 0.0
    lr: float = 0.025
    lr_end: float = 0.0
    schedule: Literal["cosine", "linear", "exponential"] = "cosine"
    gamma: float = 0.97
    warmup_epochs: int = 0
    per_iteration: bool = False
    momentum: float = 0.9
    nesterov: bool = False
    weight_decay: float = 3e-4
    no_decay: Literal["nothing", "norms", "norms and biases"] = "nothing"
    clip_norm: float | None = 5.0
    drop_path: float = 0.2
    valid_fraction: float = 0.0
    precision: Precision = "fp32"
    compile: Literal["no", "default", "reduce-overhead"] = "no"
    accelerated: bool = True
    random_cells: int = 0
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 20.0
    division: Division | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.compile not in ("no", "default", "reduce-overhead"):
            raise ValueError(
                f"compile must be 'no', 'default' or 'reduce-overhead', not {self.compile!r}"
            )
        kind = type(self.space).__name__
        if self.auxiliary and not self.space.has_auxiliary_head:
            raise ValueError(f"networks of {kind} have no auxiliary head: set auxiliary to false")
        if self.drop_path and not self.space.has_drop_path:
            raise ValueError(
                f"networks of {kind} do not drop paths: set drop_path to 0, not {self.drop_path}"
            )

    def load(self) -> ImageData:
        data = self.data.load()
        if self.division is None:
            return data
        return measured_on_the_rest(data, *divided(self.division, data))

    @property
    def epochs_may_change(self) -> bool:
        is_constant = self.schedule != "exponential" and self.lr == self.lr_end
        return (self.schedule == "exponential" or is_constant) and self.drop_path == 0.0

    def lr_at(self, epoch: float) -> float:
        """Learning rate at a moment counted in epochs from 0."""
        if epoch < self.warmup_epochs:
            # A whole epoch at a rate of 0 would be wasted; in steps the rise begins at 0.
            risen = epoch if self.per_iteration else epoch + 1
            return self.lr * risen / self.warmup_epochs
        if self.schedule == "exponential":
            return self.lr * self.gamma**epoch
        done = epoch / self.epochs
        share = 1.0 - done
        if self.schedule == "cosine":
            share = 0.5 * (1.0 + math.cos(math.pi * done))
        return self.lr_end + (self.lr - self.lr_end) * share
