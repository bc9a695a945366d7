"""Choices with their strengths and costs, for a derivation within a budget."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from gradnas.derivation import Option
from gradnas.latency import Costs, Place
from gradnas.latency.survey import When


def choice_options(costs: Costs, strengths: Mapping[str, Tensor]) -> dict[str, list[Option]]:
    """The options of every choice: score `log p - max log p`, cost, and the choices inside.

    Args:
        strengths: choice name -> strength of each operation, `(O,)`.

    Raises:
        ValueError: a choice inside operations that is used in several places, whose cost then
            depends on several other choices; a strength that is NaN.
    """
    parents: dict[str, When] = {}
    for when in costs.nested:
        for depth in range(1, len(when)):
            name = when[depth].choice
            if parents.setdefault(name, when[:depth]) != when[:depth]:
                raise _entangled(name)
    for name in parents:
        if bool((costs.tables[name] != 0).any()):
            raise _entangled(name)

    def level(chain: When) -> dict[str, list[Option]]:
        found = {}
        for name, p_O in strengths.items():
            if parents.get(name, ()) != chain:
                continue
            scores = [
                math.log(max(p, 1e-300)) if p == p else math.nan
                for p in p_O.detach().double().tolist()
            ]
            options = []
            for column, score in enumerate(scores):
                here = (*chain, Place(name, 0, column))
                cost = costs.nested.get(here, 0.0) if chain else float(costs.tables[name][column])
                options.append(Option(score - max(scores), cost, level(here)))
            found[name] = options
        return found

    return level(())


def _entangled(name: str) -> ValueError:
    return ValueError(
        f"the choice {name!r} lies inside operations of other choices in more than one place: its cost depends on "
        "several decisions at once, so nothing can be derived within a budget; give its places names of their own"
    )
