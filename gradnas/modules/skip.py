"""`Skip`: no layer, in the place of one that takes more than its input or gives more than a tensor.

A layer of a transformer takes masks and keywords, and may give `(hidden, None)` or an output of a
class of its own. What a skip gives must look the same, or nothing around it could take it.
"""

from __future__ import annotations

import dataclasses
import inspect
import json
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gradnas.modules.nesting import described, is_mixed, items_of, mapped

# Keywords under which layers of language models are given the keys and values of earlier calls.
CACHES = ("cache", "past_key_values", "past_key_value", "layer_past")

PLAIN = (bool, int, float, str, type(None))  # what is the same in every call, and needs no tensor


class First:
    """In the form of an output: where what is passed on has its place."""

    def __eq__(self, other: object) -> bool:
        return isinstance(other, First)

    def __hash__(self) -> int:
        return 0


class Skip(nn.Module):
    """Passes its first argument on, whatever else it is given.

    As an operation of a `Choice` it gives what the operations beside it give, with the first tensor
    replaced by the first argument: `(hidden, None)` beside a layer that gives that, or an output of
    the same class. What they give beyond that must be None or plain values: attention weights or a
    cache are nothing that a skip could stand in for. Anywhere else it gives its first argument.

    In derived networks its place is taken by plain modules of torch. Which form they give is known
    once the operations beside it have run.

    Raises:
        ValueError: called without arguments; the operations beside it give further tensors.
    """

    def __init__(self) -> None:
        super().__init__()
        # What the operations beside it gave, by the kind of call; empty until they have run.
        self._forms: dict[str, list[Any]] = {}
        self._first_name: str | None = None  # of the argument that is passed on
        self._counts_tokens = False

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        first = self._first(args, kwargs)
        forms = self._forms.get(self._kind(args, kwargs))
        if not forms or not isinstance(first, Tensor):
            return first

        def given(leaves: Sequence[Any], where: str) -> Any:
            del where
            return first if isinstance(leaves[0], First) else leaves[0]

        return mapped(given, [forms[-1]])

    def extra_repr(self) -> str:
        return "" if self._first_name is None else f"passes_on={self._first_name!r}"

    def stands_beside(self, operations: Sequence[nn.Module]) -> None:
        """Take note of what the operations call their first argument, and whether they count."""
        names = {_first_parameter(operation) for operation in operations}
        if len(names) == 1:
            (self._first_name,) = names
        self._counts_tokens = any(keeps_first_cache(operation) for operation in operations)

    @property
    def has_learnt(self) -> bool:
        """Whether the operations beside it have run in any call."""
        return bool(self._forms)

    def knows(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> bool:
        """Whether the operations beside it have run in such a call."""
        return self._kind(args, kwargs) in self._forms

    def learn(
        self, args: tuple[Any, ...], kwargs: Mapping[str, Any], output: Any, label: str
    ) -> None:
        """Take note of what an operation beside it gives in such a call.

        Args:
            label: what an error calls that operation.
        """
        form = First()
        if isinstance(self._first(args, kwargs), Tensor):
            form = _form_of(output, label)
        known = self._forms.setdefault(self._kind(args, kwargs), [])
        if not known or known[-1] != form:  # the one of now is the last
            self._forms[self._kind(args, kwargs)] = [*(f for f in known if f != form), form]

    def plain(self, label: str, copies: bool) -> nn.Module:
        """A module of torch alone that does the same in a derived network.

        Args:
            label: what an error calls the place.
            copies: give a copy of the first argument, because something changes it in place later.

        Raises:
            ValueError: it has never run, or in several forms.
        """
        forms: list[Any] = []
        for known in self._forms.values():
            forms += [form for form in known if form not in forms]
        if not forms:
            raise ValueError(
                f"{label} is a Skip, and what the operations beside it give is known only once "
                "they have run: run the module once on a batch before its network is derived"
            )
        if len(forms) > 1:
            raise ValueError(
                f"{label} is a Skip, and the operations beside it gave {len(forms)} different "
                "forms of output in the calls that were made: a derived network can have one. Call "
                "the module in one way (output_attentions, use_cache, return_dict)"
            )
        takes_one_argument = all(kind.endswith("|*") for kind in self._forms)
        if takes_one_argument and forms == [First()] and not copies:
            return nn.Identity()
        return _graph_module(forms[0], self._first_name, copies, self._counts_tokens, label)

    # ---- what it has learnt, in a state ----------------------------------------------------------

    def get_extra_state(self) -> str:
        """The forms as JSON, so that a search that is resumed can be derived at once."""
        found = {}
        for kind, forms in self._forms.items():
            written = [_to_json(form) for form in forms]
            if None not in written:
                found[kind] = written
        return json.dumps(found)

    def set_extra_state(self, state: Any) -> None:
        """Add what a state knows; nothing is forgotten."""
        for kind, forms in json.loads(state).items():
            if kind not in self._forms:
                self._forms[kind] = [_from_json(form) for form in forms]

    # ---- calls -----------------------------------------------------------------------------------

    def _first(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        if args:
            return args[0]
        if self._first_name in kwargs:
            return kwargs[self._first_name]
        if not kwargs:
            raise ValueError("a Skip was called without arguments: there is nothing to pass on")
        return next(iter(kwargs.values()))

    def _kind(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
        """A text that is equal for calls whose outputs have one form."""
        mode = "train" if self.training else "eval"
        given = ["*"] * len(args)
        for name, value in kwargs.items():
            is_switch = value is None or isinstance(value, bool)
            given.append(f"{name}={value}" if is_switch else name)
        return f"{mode}|{','.join(given)}"


def keeps_first_cache(module: nn.Module) -> bool:
    """Whether it is, or holds, the attention by whose cache a language model counts its tokens.

    Hugging Face's models ask the first layer how many tokens are in the cache.
    """
    return any(getattr(inner, "layer_idx", None) == 0 for inner in module.modules())


def _first_parameter(module: nn.Module) -> str | None:
    try:
        parameters = list(inspect.signature(module.forward).parameters.values())
    except (TypeError, ValueError):
        return None
    by_name = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    if not parameters or parameters[0].kind not in by_name:
        return None
    return parameters[0].name


# ---- forms ---------------------------------------------------------------------------------------


def _form_of(output: Any, label: str) -> Any:
    """The nesting with `First` for its first tensor; plain values stay."""
    is_found = False

    def leaf(leaves: Sequence[Any], where: str) -> Any:
        nonlocal is_found
        value = leaves[0]
        if is_mixed(value) and not is_found:
            is_found = True
            return First()
        if isinstance(value, PLAIN):
            return value
        what = f"{label} also gives {described(value)} at {where}"
        raise ValueError(
            f"{what}, which a Skip beside it has nothing to stand in for: ask the model for its "
            "first output alone (no attention weights, no cache: output_attentions=False, "
            "use_cache=False, attn_implementation='sdpa'), or write a module that gives both"
        )

    form = mapped(leaf, [output])
    if not is_found:
        raise ValueError(f"{label} gives {described(output)}: no tensor that a Skip could replace")
    return form


def _graph_module(
    form: Any, name: str | None, copies: bool, counts_tokens: bool, label: str
) -> nn.Module:
    """A module whose code torch writes: it needs no class of ours, also in a file."""
    graph = torch.fx.Graph()
    first = graph.placeholder(name or "x")
    graph.placeholder("*args")
    named = graph.placeholder("**kwargs")
    for keyword in CACHES if counts_tokens else ():
        cache = graph.call_method("get", (named, keyword))
        is_none = graph.call_function(operator.is_, (cache, None))
        sentence = (
            "the attention that was skipped here is the one by whose cache the model counts its "
            "tokens: use_cache=False"
        )
        graph.call_function(torch._assert, (is_none, sentence))
    if copies:
        first = graph.call_method("clone", (first,))
    graph.output(_nodes(graph, form, first, label))
    return torch.fx.GraphModule(nn.Module(), graph, class_name="Skip")


def _nodes(graph: torch.fx.Graph, form: Any, first: torch.fx.Node, label: str) -> Any:
    if isinstance(form, First):
        return first
    items = items_of(form)
    if items is None:
        return form
    parts = {key: _nodes(graph, item, first, label) for key, item in items}
    kind = type(form)
    if kind in (tuple, list):
        return kind(parts.values())
    if kind is dict:
        return parts
    if isinstance(form, tuple) and hasattr(form, "_fields"):
        return graph.call_function(kind, tuple(parts.values()))
    if dataclasses.is_dataclass(form):
        named = {str(key): part for key, part in parts.items() if part is not None}
        return graph.call_function(kind, (), named)
    raise ValueError(
        f"{label} is a Skip beside operations that give a {kind.__name__}, which a derived network "
        "cannot make by itself: let them give a tensor, a tuple, a dictionary or a dataclass"
    )


def _to_json(form: Any) -> Any:
    """The form in JSON types; None where a class is in it, which no file may name."""
    if isinstance(form, First):
        return {"first": True}
    if isinstance(form, PLAIN):
        return {"value": form}
    kind = type(form)
    if kind not in (tuple, list, dict):
        return None
    parts = []
    for key, item in items_of(form) or ():
        written = _to_json(item)
        if written is None or (kind is dict and not isinstance(key, str)):
            return None
        parts.append([key, written])
    return {kind.__name__: parts}


def _from_json(written: Mapping[str, Any]) -> Any:
    ((kind, content),) = written.items()
    if kind == "first":
        return First()
    if kind == "value":
        return content
    parts = {key: _from_json(part) for key, part in content}
    if kind == "tuple":
        return tuple(parts.values())
    return list(parts.values()) if kind == "list" else parts
