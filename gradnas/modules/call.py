"""What a network is called with: positional and named arguments, as one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


class Call:
    """The arguments of one call of a network: `gradnas.Call(ids, attention_mask=mask)`.

    Args:
        inputs: the positional ones: tensors, or whatever the network takes.
        named: the named ones.
    """

    def __init__(self, *inputs: Any, **named: Any) -> None:
        self.inputs = inputs
        self.named = named

    @classmethod
    def of(cls, example: Any) -> Call:
        """An example as a call: itself, a tuple or list of positional inputs, or a single one."""
        if isinstance(example, Call):
            return example
        if isinstance(example, (tuple, list)):
            return cls(*example)
        return cls(example)

    def on(self, network: Callable[..., Any]) -> Any:
        """The network called so."""
        return network(*self.inputs, **self.named)

    def mapped(self, function: Callable[[Any], Any]) -> Call:
        """The call with `function` of every argument."""
        inputs = [function(value) for value in self.inputs]
        named = {name: function(value) for name, value in self.named.items()}
        return Call(*inputs, **named)

    def __repr__(self) -> str:
        words = [_described(value) for value in self.inputs]
        words += [f"{name}={_described(value)}" for name, value in self.named.items()]
        return f"Call({', '.join(words)})"


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    if shape is None:
        return repr(value)
    return f"{type(value).__name__.lower()} of shape {tuple(shape)}"
