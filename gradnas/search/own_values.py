"""Values of plain attributes of a user's modules, for the state of a search.

A hidden state, a counter, a queue, a generator: no `state_dict` has them, and a search that goes on
without them is another one.
"""

from __future__ import annotations

import collections
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

MOST_ENTRIES = 100_000  # of a container
MOST_BYTES = 16 * 2**20  # of a tensor; what is larger is no state but an activation
GENERATORS = (torch.Generator, np.random.Generator, np.random.RandomState, random.Random)
CONTAINERS = (list, dict, set, collections.deque)
PLAIN = (bool, int, float, str, type(None))
OF_TORCH = frozenset(vars(nn.Module()))  # attributes that every module has


class NotPlain(Exception):
    """A value that a file of plain values and tensors cannot hold."""


def generator_state(generator: Any) -> Any:
    """Where a generator of torch, numpy or Python stands."""
    if isinstance(generator, torch.Generator):
        return generator.get_state()
    if isinstance(generator, np.random.Generator):
        return generator.bit_generator.state
    return generator.get_state() if hasattr(generator, "get_state") else generator.getstate()


def set_generator(generator: Any, state: Any) -> None:
    """The inverse of `generator_state`."""
    if isinstance(generator, torch.Generator):
        generator.set_state(state)
    elif isinstance(generator, np.random.Generator):
        generator.bit_generator.state = state
    elif hasattr(generator, "set_state"):
        generator.set_state(state)
    else:
        generator.setstate(state)


def changed_values(before: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a module that are not as they were, as plain values and tensors.

    Left out are activations with a graph behind them, and what cannot be written.

    Args:
        before: of `remembered`.
    """
    found = {}
    for name, value in now.items():
        if name in OF_TORCH or _is_same(before.get(name, before), value):
            continue
        try:
            found[name] = _encoded(value)
        except NotPlain:
            continue
    return found


def remembered(attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Attributes as they are, to see later which have changed."""
    found = {}
    for name, value in attributes.items():
        if name not in OF_TORCH:
            found[name] = value.copy() if isinstance(value, CONTAINERS) else value
    return found


def take_values(attributes: dict[str, Any], values: Mapping[str, Any], device: Any) -> None:
    """Put them back; containers and generators stay the same objects."""
    for name, value in values.items():
        attributes[name] = _decoded(value, attributes.get(name), device)


def _is_same(before: Any, now: Any) -> bool:
    if isinstance(now, GENERATORS):
        return False
    if isinstance(now, CONTAINERS):
        if type(before) is not type(now) or len(before) != len(now):
            return False
        if any(isinstance(entry, (*CONTAINERS, *GENERATORS)) for entry in _entries(now)):
            return False
        return all(a is b for a, b in zip(_entries(before), _entries(now), strict=True))
    return before is now or (isinstance(now, PLAIN) and type(before) is type(now) and before == now)


def _entries(container: Any) -> Any:
    return container.values() if isinstance(container, dict) else container


def _encoded(value: Any) -> Any:
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Tensor):
        size = value.numel() * value.element_size()
        if value.grad_fn is not None or isinstance(value, nn.Parameter) or size > MOST_BYTES:
            raise NotPlain
        return value.detach()
    if isinstance(value, GENERATORS):
        return {"generator": _plain_state(generator_state(value))}
    if isinstance(value, (*CONTAINERS, tuple)) and len(value) <= MOST_ENTRIES:
        kind = next(kind for kind in (*CONTAINERS, tuple) if isinstance(value, kind))
        if isinstance(value, dict):
            if not all(isinstance(key, PLAIN) for key in value):
                raise NotPlain
            return {"dict": [[key, _encoded(entry)] for key, entry in value.items()]}
        return {kind.__name__: [_encoded(entry) for entry in value]}
    raise NotPlain


def _plain_state(state: Any) -> Any:
    """A state of a generator without numpy's arrays."""
    if isinstance(state, np.ndarray):
        return {"array": state.tolist(), "dtype": str(state.dtype)}
    if isinstance(state, dict):
        return {"dict": [[key, _plain_state(value)] for key, value in state.items()]}
    if isinstance(state, tuple):
        return {"tuple": [_plain_state(value) for value in state]}
    return state.item() if isinstance(state, np.generic) else state


def _state_of_plain(state: Any) -> Any:
    if not isinstance(state, dict):
        return state
    if "array" in state:
        return np.array(state["array"], state["dtype"])
    if "dict" in state:
        return {key: _state_of_plain(value) for key, value in state["dict"]}
    return tuple(_state_of_plain(value) for value in state["tuple"])


def _decoded(value: Any, there: Any, device: Any) -> Any:
    if isinstance(value, Tensor):
        return value.to(device).clone()
    if not isinstance(value, dict):
        return value
    ((kind, content),) = value.items()
    if kind == "generator":
        if isinstance(there, GENERATORS):
            set_generator(there, _state_of_plain(content))
        return there
    if kind == "dict":
        old = there if isinstance(there, dict) else {}
        new = {key: _decoded(entry, old.get(key), device) for key, entry in content}
        old.clear()
        old.update(new)
        return old
    olds = list(there) if isinstance(there, (list, tuple, collections.deque)) else []
    olds += [None] * (len(content) - len(olds))
    entries = [_decoded(entry, old, device) for entry, old in zip(content, olds, strict=False)]
    if kind == "tuple":
        return tuple(entries)
    if kind == "set":
        return set(entries)
    if isinstance(there, (list, collections.deque)):
        there.clear()
        there.extend(entries)
        return there
    return entries if kind == "list" else collections.deque(entries)
