"""What a network is called with: positional and named arguments, as one value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradnas.modules.nesting import items_of

MOST_PARTS = 4  # of a container, that are told


class Call:
    """The arguments of one call of a network: `gradnas.Call(ids, attention_mask=mask)`.

    Args:
        inputs: the positional ones: tensors, or whatever the network takes.
        named: the named ones.

    Attributes:
        examples: how many examples it is of; None where nobody knows.
    """

    examples: int | None = None

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
        call = Call(*inputs, **named)
        call.examples = self.examples
        return call

    def __repr__(self) -> str:
        words = [_described(value) for value in self.inputs]
        words += [f"{name}={_described(value)}" for name, value in self.named.items()]
        return f"Call({', '.join(words)})"


def _described(value: Any) -> str:
    """Of tensors the shapes, of containers what is in them, as far as they are short."""
    shape = getattr(value, "shape", None)
    if shape is not None:
        return f"{type(value).__name__.lower()} of shape {tuple(shape)}"
    items = items_of(value)
    if items is None:
        return repr(value)
    parts = [_described(item) for _, item in items[:MOST_PARTS]]
    more = len(items) - len(parts)
    if more > 0:
        parts.append(f"{more} more")
    if type(value) in (tuple, list):
        opening, closing = ("[", "]") if type(value) is list else ("(", ")")
        return f"{opening}{', '.join(parts)}{closing}"
    named = [f"{key}: {part}" for (key, _), part in zip(items, parts, strict=False)]
    return f"{type(value).__name__}({', '.join([*named, *parts[len(items) :]])})"
