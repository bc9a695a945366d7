"""The best of several candidates, as `CandidateSelection` asks for, and what is said of it."""

from __future__ import annotations

from dataclasses import dataclass

from gradnas import distributed
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject
from gradnas.search.verdict import Yardstick
from gradnas.selections import Selection


@dataclass(frozen=True)
class Chosen:
    """The best of the candidates that were measured.

    Attributes:
        decision: the architecture.
        value: its measure; the mean of the likeliest and of the random ones beside it.
        likeliest, random: so many different candidates of each kind were measured.
        first: the measure of the likeliest one; None where no likeliest was asked for.
        random_mean, random_sd: of the random ones; None of too few.
        clear: so many of the others are worse by more than the noise of the comparison.
        examples: that it was measured on.
        where: what these are.
    """

    decision: Architecture
    measure: Yardstick
    value: float
    likeliest: int
    random: int
    first: float | None
    random_mean: float | None
    random_sd: float | None
    clear: int
    examples: int
    where: str

    @property
    def others(self) -> int:
        """The candidates beside the best one."""
        return self.likeliest + self.random - 1

    @property
    def undecided(self) -> str | None:
        """A sentence where what was taken is chance; else None."""
        if self.clear:
            return None
        return (
            f"nothing was decided: by {self.measure.name} on {self.examples} "
            f"{self.where} none of the {self.others} other candidates is worse than the "
            "best by more than the noise, so what was taken is chance; search for more epochs, or "
            "measure on more of them"
        )

    def to_json(self) -> JsonObject:
        """For the results of a run."""
        found: JsonObject = {"text": self.decision.to_text(), "measure": self.measure.name}
        for name, value in vars(self).items():
            if name not in ("decision", "measure"):
                found[name] = value
        return found | {"sentence": self.sentence}

    @property
    def sentence(self) -> str:
        """What was taken, and beside what."""
        text = self.measure.text
        kinds = [f"{self.likeliest} by the alphas"] if self.likeliest else []
        kinds += [f"{self.random} at random"] if self.random else []
        beside = [] if self.first is None else [f"the likeliest has {text(self.first)}"]
        if self.random_mean is not None:
            spread = "" if self.random_sd is None else f" ± {text(self.random_sd)}"
            beside.append(f"the random ones {text(self.random_mean)}{spread}")
        return (
            f"the best of {self.likeliest + self.random} candidates ({' and '.join(kinds)}) by "
            f"{self.measure.name} on {self.examples} {self.where}: {text(self.value)} "
            f"({', '.join(beside)}); {self.clear} of the {self.others} others "
            "are worse by more than the noise"
        )


def check_candidates(selection: Selection, keeps_weights: bool) -> None:
    """ValueError where a search lays out no networks beside itself."""
    if any(selection.candidates) and not keeps_weights:
        raise ValueError(
            f"{type(selection).__name__} measures derived networks beside the search, and the "
            "weights of PartialChannels do not fit any: use Strongest(), or another relaxation"
        )


def check_measure(selection: Selection, has_measure: bool) -> None:
    """ValueError where candidates are to be compared by a measure that nobody has told."""
    if any(selection.candidates) and not selection.by_loss and not has_measure:
        raise ValueError(
            f"{type(selection).__name__}(criterion='measure') needs to know what the data are "
            "measured by, and fit and choose know the loss alone: call search.choose(..., "
            "measure=...) in a loop of your own, or leave criterion out"
        )


def check_alone(selection: Selection) -> None:
    """ValueError in a loop over several processes, each of which would decide for itself."""
    if any(selection.candidates) and distributed.world() > 1:
        raise ValueError(
            f"{type(selection).__name__} in a loop of your own over several processes would take "
            "another decision in each, as each measures its own examples: use gradnas search, "
            "where the first process measures, or Strongest()"
        )


def not_chosen(error: BaseException) -> str:
    """What is said where candidates could not be measured."""
    return f"the candidates could not be measured, so the decision is that of the alphas: {error}"
