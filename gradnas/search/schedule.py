"""Where a search stands, and what happens when."""

from __future__ import annotations

from dataclasses import dataclass

from gradnas.runs import NonFiniteError


@dataclass
class Schedule:
    """The position of a search, in epochs and steps, and the settings that depend on it.

    Args:
        epochs: length of the search; None: not known.
        warmup_epochs: epochs at the start in which only the weights learn.
        alpha_every: the alphas take a step before every so many steps of the weights.
        steps_per_epoch: None where it is not known.

    Attributes:
        epoch: finished epochs.
        steps: finished steps, in all epochs.
        steps_before_epoch: `steps` when the present epoch began.
        selection_epochs: epochs at the end in which a selection measures operations; the schedules
            are those of the epochs before.
        selection_lr_share: learning rate there, as a share of the first one.
        alphas_wait: whether the alphas take no step at all.

    Raises:
        ValueError: a number of epochs or steps below 1.
    """

    epochs: int | None
    warmup_epochs: int
    alpha_every: int
    steps_per_epoch: int | None
    epoch: int = 0
    steps: int = 0
    steps_before_epoch: int = 0
    selection_epochs: int = 0
    selection_lr_share: float = 1.0
    alphas_wait: bool = False

    def __post_init__(self) -> None:
        for name in ("epochs", "alpha_every", "steps_per_epoch"):
            number = getattr(self, name)
            if number is not None and number < 1:
                raise ValueError(f"{name} must be at least 1, not {number}")
            if number is not None and number != int(number):
                raise ValueError(f"{name} must be a whole number, not {number}")

    def check_alphas_move(self, epochs: int | None) -> None:
        """ValueError where a search of this length ends before the alphas take their first step."""
        if epochs is not None:
            self.check_selection(epochs)
        if epochs is not None and epochs <= self.warmup_epochs and not self.alphas_wait:
            raise ValueError(
                f"the alphas would never move: a search of {epochs} epochs ends within its "
                f"warm-up (warmup_epochs={self.warmup_epochs}); search for longer, or warm up for "
                "fewer epochs"
            )

    def check_selection(self, epochs: int) -> None:
        """ValueError where the alphas of so long a search learn nothing before its rounds."""
        if self.selection_epochs and epochs <= self.selection_epochs:
            raise ValueError(
                f"the rounds of the selection take the last {self.selection_epochs} epochs of a "
                f"search, and this one has {epochs}: search for longer, or with a smaller interval"
            )
        learning = epochs - self.selection_epochs
        if self.selection_epochs and learning <= self.warmup_epochs and not self.alphas_wait:
            raise ValueError(
                f"the alphas would not move before the rounds of the selection, which take the "
                f"last {self.selection_epochs} of {epochs} epochs, as the warm-up takes those "
                f"before (warmup_epochs={self.warmup_epochs}): search for longer, or warm up for "
                "fewer epochs"
            )

    @property
    def is_over(self) -> bool:
        """Whether the last epoch has ended; False where it is not known which that is."""
        return self.epochs is not None and self.epoch >= self.epochs

    @property
    def learning_epochs(self) -> int | None:
        """Epochs before those of the selection; None: not known."""
        return None if self.epochs is None else max(1, self.epochs - self.selection_epochs)

    @property
    def selection_epoch(self) -> int | None:
        """The present epoch among those of the selection, from 0; None before."""
        learning = self.learning_epochs
        if not self.selection_epochs or learning is None or self.epoch < learning:
            return None
        return self.epoch - learning

    @property
    def progress(self) -> float | None:
        """Share of the search that is done, in [0, 1]: epoch / (epochs - 1); None: not known."""
        if self.learning_epochs is None:
            return None
        return min(1.0, self.epoch / max(1, self.learning_epochs - 1))

    @property
    def done(self) -> float | None:
        """Share of the epochs that are finished, epoch / epochs: 0 in the first; None: not known.

        The published schedules of regularisers count so; temperatures (`progress`) reach their end.
        """
        if self.learning_epochs is None:
            return None
        return min(1.0, self.epoch / self.learning_epochs)

    @property
    def warming_up(self) -> bool:
        """Whether the alphas still wait."""
        return self.epoch < self.warmup_epochs

    @property
    def alpha_due(self) -> bool:
        """Whether the coming step begins with one of the alphas."""
        if self.warming_up or self.alphas_wait:
            return False
        # Every time, as in algorithm 1 of DARTS: the alphas go first, before any weight has moved.
        if self.alpha_every == 1:
            return True
        # Every N times: after N steps of the weights, so not before the first of all.
        return self.steps > 0 and self.steps % self.alpha_every == 0

    @property
    def epochs_with_steps(self) -> float:
        """Epochs that are done, counting the steps of the present one.

        Raises:
            ValueError: the length of an epoch is not known.
        """
        if not self.steps_per_epoch:
            raise ValueError(
                "a learning rate that falls with every step needs the length of an epoch: "
                "Search(..., steps_per_epoch=N)"
            )
        share = (self.steps - self.steps_before_epoch) / self.steps_per_epoch
        return self.epoch + min(1.0, share)

    def finish_step(self) -> None:
        """Count a step."""
        self.steps += 1

    def finish_epoch(self) -> None:
        """Count an epoch."""
        self.epoch += 1
        self.steps_before_epoch = self.steps

    def not_finite(self, what: str) -> NonFiniteError:
        """The error for a number that is NaN or infinite in the present step."""
        return NonFiniteError(
            f"step {self.steps} (epoch {self.epoch}): {what}; the step was undone. "
            "Try a smaller learning rate, gradient clipping (clip_norm), precision='fp32', "
            "and check the data for NaN"
        )
