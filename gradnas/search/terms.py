"""The terms of the alphas' loss, as a search adds them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from gradnas.gradients import ArchitectureGradient
from gradnas.gradients.base import Loss, Tensors
from gradnas.objectives.terms import AlphaTerm
from gradnas.relaxations import Dirichlet, Relaxation
from gradnas.search.schedule import Schedule

Weights = Sequence[float | Tensor]


class Terms:
    """The terms of a search with its schedule.

    Args:
        terms: any number of them.
        relaxation: whose alphas they are of.
        gradient: how the alphas learn.
        tables: the names of the alphas that are of operations, and of nothing else.

    Raises:
        ValueError: a term that is not for this relaxation or gradient; the same kind twice.
    """

    def __init__(
        self,
        terms: Sequence[AlphaTerm],
        relaxation: Relaxation,
        gradient: ArchitectureGradient,
        schedule: Schedule,
        tables: Sequence[str],
    ) -> None:
        check_terms(terms, relaxation, gradient)
        self.terms = tuple(terms)
        self.schedule = schedule
        self.tables = tuple(tables)

    def __bool__(self) -> bool:
        return bool(self.terms)

    def weights(self) -> list[float]:
        """The weight of each term in this epoch.

        Raises:
            ValueError: one depends on the length of the search, which is not known.
        """
        done = self.schedule.done
        found = []
        for term in self.terms:
            if done is None and term.needs_length:
                raise ValueError(
                    f"{term} changes over the search: say how long it is with Search(..., epochs=N)"
                )
            found.append(term.weight_at(done or 0.0))
        return found

    def value(self, alphas: Mapping[str, Tensor], weights: Weights | None = None) -> Tensor:
        """Their sum, a scalar; `weights` in the place of those of this epoch."""
        tables = {name: alphas[name] for name in self.tables}
        total = torch.zeros((), device=next(iter(tables.values())).device)
        for term, weight in zip(self.terms, weights or self.weights(), strict=True):
            total = total + weight * term.value(tables)
        return total

    def added(self, loss: Loss, weights: Weights | None = None) -> Loss:
        """A loss of the alphas with the terms."""
        if not self.terms:
            return loss

        def with_terms(params: Tensors, alphas: Tensors) -> Tensor:
            own = loss(params, alphas)
            return own + self.value(alphas, weights).to(own.dtype)

        return with_terms

    def added_to(self, grads: Tensors, alphas: Mapping[str, Tensor]) -> Tensors:
        """Gradients that were had without a loss, with those of the terms."""
        if not self.terms:
            return grads
        tables = {name: alpha.detach().requires_grad_() for name, alpha in alphas.items()}
        value = self.value(tables)
        pulls = torch.autograd.grad(value, list(tables.values()), allow_unused=True)
        total = {}
        for name, pull in zip(tables, pulls, strict=True):
            total[name] = grads[name] if pull is None else grads[name] + pull.to(grads[name].dtype)
        return total


def check_terms(
    terms: Sequence[AlphaTerm], relaxation: Relaxation, gradient: ArchitectureGradient
) -> None:
    """ValueError for a term that means nothing with these, and for one kind twice."""
    kinds = [type(term) for term in terms]
    for term in terms:
        if not isinstance(term, AlphaTerm):
            raise ValueError(f"terms must be AlphaTerms, such as BetaDecay(), not {term!r}")
        name = type(term).__name__
        if kinds.count(type(term)) > 1:
            raise ValueError(f"{name} is given twice: give one with the sum of the weights")
        inner = relaxation.innermost
        if term.fits == "Dirichlet" and not isinstance(inner, Dirichlet):
            raise ValueError(
                f"{name} is a divergence of Dirichlet distributions, and {type(inner).__name__} "
                "has none: use relaxation=Dirichlet()"
            )
        if term.fits == "independent" and inner.competes:
            raise ValueError(
                f"{name} pushes each weight to 0 or 1 by itself, and those of "
                f"{type(inner).__name__} share a one: use relaxation=Sigmoid()"
            )
        if term.fits in ("competing", "softmax") and not inner.competes:
            raise ValueError(
                f"{name} holds back what wins the softmax of an edge, and with "
                f"{type(inner).__name__} nothing competes: use Softmax(), or ZeroOne() with it"
            )
        if term.fits == "softmax" and isinstance(inner, Dirichlet):
            raise ValueError(
                f"{name} lowers all alphas of an edge together, which a softmax does not see, and "
                "concentrations of Dirichlet do: all would fall to 0, where its draws are single "
                "operations; use DirichletKL(), or Softmax() with it"
            )
        # Rewards teach all operations at once, and nothing is corrected.
        if inner.corrects_updates and not gradient.num_samples:
            raise ValueError(
                f"{name} moves the alphas of all operations, and {inner!r} takes back what a step "
                "changes beyond those that were sampled, so that the term would act on the others "
                "alone: use a relaxation without such a rule, as BinaryGates(mode='recompute'), or "
                "leave the term out"
            )
