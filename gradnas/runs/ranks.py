"""One checkpoint for several processes: the state of the first, and what the others have apart.

Weights, alphas and optimisers are alike on all ranks; random states, sums over the own share of an
epoch and the hidden states of the own texts are not. What differs is found by comparing, so that no
kind of data has to say it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from gradnas import distributed
from gradnas.runs.checkpoint import State

RANKS = "ranks"  # entry of a state
Path = tuple[Any, ...]
_GONE = "\0gone"  # stands for what another rank does not have


def with_all_ranks(state: State) -> State:
    """The state to save: on every rank, and the same on all of them.

    In a single process it is the state itself. All ranks must call this together.
    """
    if distributed.world() == 1:
        return state
    leaves = _leaves(state)
    digests = {path: _digest(leaf) for path, leaf in leaves.items()}
    of_main = distributed.from_main(digests)
    own = []
    for path, leaf in leaves.items():
        if of_main.get(path) != digests[path]:
            own.append((path, _on_cpu(leaf)))
    for path in of_main:
        if path not in leaves:
            own.append((path, _GONE))
    return {**state, RANKS: [list(pairs) for pairs in distributed.gathered(own)]}


def of_each_rank(state: State) -> list[State]:
    """The states of all ranks that a saved one is of; one where a single process saved it."""
    if RANKS not in state:
        return [state]
    main = {key: value for key, value in state.items() if key != RANKS}
    states = []
    for own in state[RANKS]:
        one: Any = _copied(main)
        for path, leaf in own:
            _put(one, tuple(path), leaf)
        states.append(one)
    return states


def take_over(
    state: State, load: Callable[[State], None], redistributed: Callable[[list[State]], State]
) -> str | None:
    """Give each rank its state; a sentence where there are now more or fewer than saved it.

    Args:
        load: takes over the state of this rank.
        redistributed: that state, from those of another number of ranks.
    """
    states = of_each_rank(state)
    if len(states) == distributed.world():
        load(states[distributed.rank()])
        return None
    load(redistributed(states))
    if not distributed.is_main():
        # The first rank goes on with its numbers; the others begin streams of their own from them.
        drawn = int(torch.randint(2**62, ()))
        torch.manual_seed((drawn + distributed.rank()) % 2**63)
    return (
        f"the checkpoint is of {len(states)} process{'es' if len(states) > 1 else ''}, and "
        f"{distributed.world()} go on: batches are shared in another way, so that results differ "
        "in their last bits, and what is drawn at random (dropout) is drawn anew"
    )


# ---- trees ---------------------------------------------------------------------------------------


def _leaves(tree: Any, path: Path = ()) -> dict[Path, Any]:
    """What a tree of dictionaries and lists holds, by where it lies."""
    if isinstance(tree, Mapping) and tree:
        items = list(tree.items())
    elif isinstance(tree, (list, tuple)) and tree:
        items = list(enumerate(tree))
    else:
        return {path: tree}
    found: dict[Path, Any] = {}
    for key, value in items:
        found |= _leaves(value, (*path, key))
    return found


def _digest(leaf: Any) -> str:
    if not isinstance(leaf, Tensor):
        return f"{type(leaf).__name__} {leaf!r}"
    tensor = leaf.detach().cpu().contiguous()
    data = tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
    return f"{tensor.dtype} {tuple(tensor.shape)} {hashlib.sha256(data).hexdigest()}"


def _on_cpu(leaf: Any) -> Any:
    return leaf.detach().cpu().clone() if isinstance(leaf, Tensor) else leaf


def _copied(tree: Any) -> Any:
    """The tree with containers of its own; leaves are shared."""
    if isinstance(tree, Mapping):
        return {key: _copied(value) for key, value in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [_copied(value) for value in tree]
    return tree


def _put(tree: Any, path: Path, leaf: Any) -> None:
    """Put a leaf where it lies, or take away what is not there."""
    *above, last = path
    if isinstance(leaf, str) and leaf == _GONE:
        for key in above:
            is_there = key in tree if isinstance(tree, dict) else key < len(tree)
            tree = tree[key] if is_there else {}
            if not isinstance(tree, (dict, list)):
                return  # a single value is there instead
        if isinstance(tree, dict):
            tree.pop(last, None)
        else:
            del tree[last:]
        return
    for place, key in enumerate(above):
        inside = tree[key] if not isinstance(tree, dict) else tree.get(key)
        if not isinstance(inside, (dict, list)):
            # The first rank has a single value (or nothing) where this one has several.
            inside = [] if isinstance([*above, last][place + 1], int) else {}
            tree[key] = inside
        tree = inside
    if isinstance(tree, list) and last == len(tree):
        tree.append(leaf)
    else:
        tree[last] = leaf
