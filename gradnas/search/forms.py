"""The two forms of a user's function: of outputs and target, or of the network and a batch."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

NETWORK_NAMES = ("net", "network", "model", "module")
BATCH_NAMES = ("batch",)


def takes_network(function: Callable[..., Any]) -> bool:
    """Whether a function is called with `(net, batch)` and not with `(outputs, target)`.

    Its parameters say it by their names: the first is called net, network, model or module, or the
    second batch.
    """
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # of builtins
        return False
    names = [p.name for p in parameters if p.kind is not inspect.Parameter.KEYWORD_ONLY]
    first = names[0] if names else ""
    second = names[1] if len(names) > 1 else ""
    return first in NETWORK_NAMES or second in BATCH_NAMES
