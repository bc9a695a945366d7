"""Packages that a part of gradnas needs and the rest does without, by the extra that brings them.

They are imported where they are used. What needs one asks for it here first, before any work, so
that a missing one is told in one sentence and in the same words everywhere.
"""

from __future__ import annotations

import importlib.util
import sys
from typing import Literal

Extra = Literal[
    "images", "text", "equations", "onnx", "ray", "reports", "slurm", "study", "tensorboard"
]

# As pip calls them, where Python imports them by another name.
_DISTRIBUTIONS = {"PIL": "pillow", "sklearn": "scikit-learn"}


class MissingPackageError(ModuleNotFoundError, ValueError):
    """A package is not installed that this part of gradnas needs; the sentence names the extra."""


def need(*modules: str, extra: Extra, what: str) -> None:
    """Check that the packages are installed; imports none of them.

    Args:
        modules: names that are imported, such as `sklearn`.
        extra: that brings them, in `pip install 'gradnas[EXTRA]'`.
        what: needs them; begins the sentence.

    Raises:
        MissingPackageError: one of them is not installed.
    """
    missing = [_DISTRIBUTIONS.get(name, name) for name in modules if not _is_installed(name)]
    if missing:
        *others, last = missing
        listed = f"{', '.join(others)} and {last}, which are" if others else f"{last}, which is"
        raise MissingPackageError(
            f"{what} needs {listed} not installed: pip install 'gradnas[{extra}]'"
        )


def _is_installed(name: str) -> bool:
    if sys.modules.get(name) is not None:
        return True
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:  # an import hook that refuses it
        return False
