"""A search for laws of quantities with units.

Legend: N points, D features.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from gradnas.laws.dimensions import Dimensions, chosen_units, dimensions
from gradnas.laws.discover import discover_laws
from gradnas.laws.law import Law, LawProgress, Laws, LawSettings


def laws_with_units(
    x_ND: np.ndarray,
    y_N: np.ndarray,
    settings: LawSettings,
    weights_N: np.ndarray | None,
    seed: int,
    on_progress: Callable[[LawProgress], None] | None,
    names: Sequence[str],
    units: Mapping[str, str],
    target_unit: str,
) -> Laws:
    """The laws that agree in their units, of the squared error.

    What is searched are laws of the products without a unit for the target over a product that has
    its unit (`gradnas/laws/dimensions.py`): fewer features, and nothing that adds metres to
    seconds.

    Raises:
        ValueError: as `dimensions`, and as `discover_laws`.
    """
    of_features = chosen_units(units, names)
    found = dimensions(of_features, target_unit, names, x_ND)
    groups_NG = found.without_units(x_ND)
    scale_N = found.scale(x_ND)
    own_N = np.ones_like(y_N) if weights_N is None else weights_N
    # An error of dy in the target is one of dy / scale here.
    w_N = own_N * scale_N**2
    size = float(w_N.sum() / own_N.sum())
    group_names = [_written(group, names) for group in found.groups] or ["nothing"]

    def in_units(progress: LawProgress) -> None:
        assert on_progress is not None
        best = None if progress.best is None else found.in_units(progress.best)
        on_progress(replace(progress, best=best, error=progress.error * size))

    laws = discover_laws(
        groups_NG,
        y_N / scale_N,
        settings,
        w_N / size,
        "squared",
        seed,
        None if on_progress is None else in_units,
        group_names,
    )
    note = (
        f"by their units {len(names)} features are {len(found.groups)} products without a unit"
        + (f": {', '.join(group_names)}" if found.groups else "")
    )
    return replace(
        laws,
        front=tuple(_in_units(law, found, size) for law in laws.front),
        # Without a product there is one column of ones, of which nothing need be said.
        notes=(note, *laws.notes) if found.groups else (note,),
    )


def _in_units(law: Law, found: Dimensions, size: float) -> Law:
    formula = found.in_units(law.formula)
    return replace(
        law,
        formula=formula,
        complexity=formula.complexity,
        train_error=law.train_error * size,
        valid_error=law.valid_error * size,
        rounding=law.rounding * size,
    )


def _written(exponents: Sequence[object], names: Sequence[str]) -> str:
    factors: list[str] = []
    for name, exponent in zip(names, exponents, strict=True):
        if exponent == 1:
            factors.append(name)
        elif exponent != 0:
            factors.append(f"{name}^({exponent})" if "/" in str(exponent) else f"{name}^{exponent}")
    return "*".join(factors)
