"""How decided a search is, in numbers and in words: whether its alphas have moved."""

from __future__ import annotations

import torch

from gradnas.search.result import UNMOVED, largest_change, strengths
from gradnas.search.search import Search


class Decidedness:
    """How far the alphas of a search have come from where they were at its beginning."""

    def __init__(self, search: Search) -> None:
        self.search = search

    def entropies(self) -> dict[str, float]:
        """How undecided each table of alphas is: entropy in nats, the mean over its edges."""
        search = self.search
        found = {}
        for name, alpha in search.supernet.alphas.items():
            p = search.relaxation.probabilities(alpha.detach().double())
            found[name] = torch.special.entr(p).sum(-1).mean().item()
        return found

    def all_warm_up(self) -> str | None:
        """A sentence where no epoch of the search moves the alphas; else None."""
        schedule = self.search.schedule
        if schedule.epochs is None or schedule.warmup_epochs < schedule.epochs:
            return None
        return (
            f"all {schedule.epochs} epochs are warm-up, in which the alphas wait: nothing will be "
            f"decided (--warmup-epochs is {schedule.warmup_epochs})"
        )

    def undecided(self) -> str | None:
        """A sentence where the alphas have not moved, or go no way: nothing was decided."""
        search = self.search
        if not any(self.entropies().values()) or search.supernet.fixed:
            return None  # there was nothing to decide, or it was decided without the alphas
        now = strengths(search.relaxation, search.passes.tables)
        if largest_change(search.start, now) > UNMOVED:
            return search.health.undecided
        schedule = self.search.schedule
        warmup = schedule.warmup_epochs
        lr = self.search.alpha_optimizer.param_groups[0]["lr"]
        if schedule.epochs is not None and warmup >= schedule.epochs:
            why = (
                f"all {schedule.epochs} epochs are warm-up, in which the alphas wait: search for "
                f"more than {warmup} epochs (--epochs), or with fewer of warm-up (--warmup-epochs)"
            )
        else:
            why = f"search for more epochs (--epochs), or raise --alpha-lr, which is {lr:g}"
        return (
            "nothing was decided: the alphas have hardly moved (no probability has changed by 1% "
            f"of itself), so what they say is chance; {why}"
        )
