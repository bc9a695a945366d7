"""The configurations of a search and of a training on text."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gradnas.architectures.genotype import Genotype
from gradnas.config import check_numbers
from gradnas.data import ChunkLengths, Corpus, TextConfig
from gradnas.gradients import ArchitectureGradient, Unrolled
from gradnas.objectives import AlphaTerm, TokenLikelihood
from gradnas.optimizers import AlphaOptimizer, WeightOptimizer
from gradnas.relaxations import Relaxation, Softmax
from gradnas.search.health import check_guard
from gradnas.selections import Selection, Strongest
from gradnas.settings.formats import Guard
from gradnas.spaces import RecurrentCell
from gradnas.stabilizers import Stabilizer
from gradnas.tasks.base import SearchSettings, TrainSettings
from gradnas.tasks.division import Division


@dataclass(frozen=True)
class TextSearchConfig(SearchSettings):
    """A search run on text.

    The defaults are those of DARTS on Penn Treebank (arXiv 1806.09055, appendix A.1.2).

    Args:
        space, relaxation, gradient: what is searched, and how.
        terms: of the alphas alone, added to their loss.
        stabilizers: change how the weights learn.
        selection: how the decision is had in the end; the rounds of one that measures are the last
            of the `epochs`.
        objective: of the weights; the alphas see the likelihood alone.
        chunks: lengths of the training chunks; validation chunks have the base length. The learning
            rate of a step is that of the epoch times length / base.
        batch_size: texts read side by side, in either stream.
        warmup_epochs: epochs at the start in which the alphas wait.
        max_steps: stop after so many steps, without evaluation (to try a setting out).
        threads, checkpoint_seconds: as in `TrainConfig`.
        candidates: so many of the likeliest architectures are measured at the end, within a tenth
            of the work of the search; None: 8, within 4.5%; 0: the result is not compared with
            anything.
        guard: what follows where the search becomes unhealthy: `"warn"` says so, `"stop"` ends it
            with the last decision that was good, `"off"` measures nothing that costs anything.
        recipe: the name of the recipe that it began with, which tells the training that follows.
    """

    space: RecurrentCell = field(default_factory=RecurrentCell)
    relaxation: Relaxation = field(default_factory=Softmax)
    gradient: ArchitectureGradient = field(default_factory=lambda: Unrolled(clip=True))
    terms: tuple[AlphaTerm, ...] = ()
    stabilizers: tuple[Stabilizer, ...] = ()
    selection: Selection = field(default_factory=Strongest)
    data: TextConfig = field(default_factory=TextConfig)
    objective: TokenLikelihood = field(default_factory=lambda: TokenLikelihood(slowness=1e-3))
    chunks: ChunkLengths = field(default_factory=ChunkLengths)
    epochs: int = 50
    warmup_epochs: int = 0
    max_steps: int | None = None
    batch_size: int = 256
    weights: WeightOptimizer = field(
        default_factory=lambda: WeightOptimizer(
            lr=20.0, lr_end=20.0, momentum=0.0, weight_decay=5e-7, clip_norm=0.25
        )
    )
    alphas: AlphaOptimizer = field(
        default_factory=lambda: AlphaOptimizer(lr=3e-3, betas=(0.9, 0.999))
    )
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
        if self.batch_size < 2:
            raise ValueError(
                f"batch_size must be at least 2, not {self.batch_size}: the search cell normalises "
                "over it"
            )
        if self.selection.drawings:
            raise ValueError(
                f"{type(self.selection).__name__} counts patterns of activation of examples that "
                "stand for themselves, and texts are read in chunks, one after the other: use "
                "CandidateSelection() or Strongest()"
            )

    def division_for(self, data: Corpus, seed: int) -> Division:
        del data, seed
        return Division()  # the validation text is for the alphas


@dataclass(frozen=True)
class TextTrainConfig(TrainSettings):
    """A training run on text.

    The defaults are those of DARTS on Penn Treebank (arXiv 1806.09055, appendix A.2.2).

    Args:
        space: the size of the network and its dropout.
        genotype: what is trained, an architecture of that space.
        objective: the loss; reported losses are the likelihood alone.
        chunks: lengths of the training chunks; the learning rate of a step is lr * length / base.
        batch_size, eval_batch_size, test_batch_size: texts read side by side in training,
            validation and test. Without dropout they change only where a text begins without a
            context.
        lr, weight_decay, clip_norm: of SGD, without momentum; clip_norm is the largest global L2
            norm of the gradient.
        patience: switch to averaged SGD after the first epoch whose validation loss is above the
            best of all but the last `patience` ones before it ("non-monotone trigger"); None never
            switches.
        random_cells, max_steps, threads, checkpoint_seconds: as in `TrainConfig`.
        division: measure on the validation text; the test text is not read.

    Source of the trigger: Merity, Keskar, Socher (arXiv 1708.02182), algorithm 1.
    """

    space: RecurrentCell
    genotype: Genotype
    data: TextConfig = field(default_factory=TextConfig)
    objective: TokenLikelihood = field(default_factory=lambda: TokenLikelihood(slowness=1e-3))
    chunks: ChunkLengths = field(default_factory=lambda: ChunkLengths(deviation=5.0))
    epochs: int = 8000
    batch_size: int = 64
    eval_batch_size: int = 10
    test_batch_size: int = 1
    lr: float = 20.0
    weight_decay: float = 8e-7
    clip_norm: float = 0.25
    patience: int | None = 5
    random_cells: int = 0
    max_steps: int | None = None
    seed: int = 0
    device: str = "auto"
    threads: int | None = None
    checkpoint_seconds: float = 20.0
    division: Division | None = None

    def __post_init__(self) -> None:
        check_numbers(self)
        if self.lr == 0:
            raise ValueError("lr must be above 0, not 0")

    def load(self) -> Corpus:
        corpus = self.data.load()
        return corpus if self.division is None else replace(corpus, test=corpus.valid)

    @property
    def epochs_may_change(self) -> bool:
        return True  # the learning rate is constant, and averaging begins by the losses alone
