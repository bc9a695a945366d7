"""Choices with their strengths and costs, for a derivation within a budget."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from gradnas.derivation import Option, log_strength
from gradnas.latency import Costs, Place
from gradnas.latency.recorder import When


def choice_options(costs: Costs, strengths: Mapping[str, Tensor]) -> dict[str, list[Option]]:
    """The options of every choice: score `log p - max log p`, cost, and the choices inside.

    Args:
        strengths: choice name -> strength of each operation, `(O,)`.

    Raises:
        ValueError: a choice inside operations that is used in several places, whose cost then
            depends on several other choices; a strength that is NaN.
    """
    parents = _parents(costs)

    def level(chain: When) -> dict[str, list[Option]]:
        """The choices that lie directly inside the operations of `chain`."""
        options = {}
        for name, strength_O in strengths.items():
            if parents.get(name, ()) != chain:
                continue
            scores = [log_strength(p) for p in strength_O.detach().double().tolist()]
            best_score = max(scores)
            options[name] = []
            for column, score in enumerate(scores):
                here = (*chain, Place(name, 0, column))
                cost = costs.nested.get(here, 0.0) if chain else float(costs.tables[name][column])
                # Told from the best score, which so is 0: an option does not lose by the choices
                # inside it, whose probabilities would all be factors below 1.
                options[name].append(Option(score - best_score, cost, level(here)))
        return options

    return level(())


def _parents(costs: Costs) -> dict[str, When]:
    """For every choice inside operations the operations that it lies in, from the outermost on."""
    parents: dict[str, When] = {}
    for when in costs.nested:
        for depth in range(1, len(when)):
            name = when[depth].choice
            if parents.setdefault(name, when[:depth]) != when[:depth]:
                raise _entangled(name)
    for name in parents:
        # A cost in its own table is one that it has whatever is chosen around it: another place.
        if bool((costs.tables[name] != 0).any()):
            raise _entangled(name)
    return parents


def _entangled(name: str) -> ValueError:
    return ValueError(
        f"the choice {name!r} lies inside operations of other choices in more than one place: "
        "its cost depends on several decisions at once, so nothing can be derived within a "
        "budget; give its places names of their own"
    )
