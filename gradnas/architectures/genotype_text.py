"""Texts that hold a genotype: `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`, as it is found.

The original text is the repr of a named tuple. It is found alone, in a line of a log, in a file of
many, under other class names. A literal parser on the syntax tree reads it: text is parsed, never
evaluated.
"""

from __future__ import annotations

import ast
import re
import warnings
from collections.abc import Collection, Iterator

from gradnas.architectures.base import MAX_CHARACTERS, type_word
from gradnas.config import Json, did_you_mean

Value = str | int | float | tuple["Value", ...]

# A bound on the work that a hostile text can cause: no published concat is longer than 8
_MAX_RANGE = 1_000
_MAX_TRIES = 20  # of genotypes in a log, from the end
_FORM = "a genotype text reads Genotype(normal=[('sep_conv_3x3', 0), ...], ...)"
_CLASS = re.compile(r"\b\w*genotype\w*(?=\s*\()", re.IGNORECASE)


def concat_text(concat: tuple[int, ...]) -> str:
    """As Python 3 printed it: a contiguous concat is a range."""
    run = range(concat[0], concat[0] + len(concat))
    return repr(run) if concat == tuple(run) else repr(list(concat))


def resembles_genotype(text: str) -> bool:
    """Whether a class of genotypes is called in a text."""
    return _CLASS.search(text) is not None


def read_fields(text: object, name: str | None = None) -> dict[str, Value]:
    """The fields of the named tuple: texts, numbers and tuples of them.

    A class may have any name with `genotype` in it. In a text of one genotype `NAME =` may stand
    before it; of a log, with any words around, the last genotype is read.

    Args:
        name: of the one that is meant, in a Python file of several.

    Raises:
        ValueError: no genotype, several names to choose from, or anything in it but lists, tuples,
            strings, numbers and `range(a, b)`.
    """
    call = _genotype_call(text, name)
    return {str(part.arg): _literal(part.value) for part in call.keywords}


# -- finding the call ------------------------------------------------------------------------------


def _genotype_call(text: object, name: str | None) -> ast.Call:
    if not isinstance(text, str):
        raise ValueError(f"a genotype text is a str, not {type_word(text)}")
    if len(text) > MAX_CHARACTERS:
        call = None if name is not None else _last_call(text[-MAX_CHARACTERS:])  # of a log
        if call is None:
            raise ValueError(f"genotype text: {len(text)} characters, more than {MAX_CHARACTERS}")
        return _checked(call)
    try:
        tree = _parsed(text)
    except ValueError:
        if name is not None:
            raise
        found = _last_call(text)
        if found is None:
            raise
        call = found
    else:
        call = _named_call(tree, name) if name is not None else _only_call(tree)
    return _checked(call)


def _checked(call: ast.Call) -> ast.Call:
    """The call, if it is one of fields by name. ValueError otherwise."""
    names = [keyword.arg for keyword in call.keywords]
    if call.args or None in names:  # None stands for **
        raise ValueError("genotype text: every part must have a field name, as in normal=[...]")
    if len(set(names)) < len(names):
        raise ValueError("genotype text: a field is given twice")
    return call


def _parsed(text: str) -> ast.Module:
    """The syntax tree. ValueError for a text that is not Python."""
    try:
        with warnings.catch_warnings():
            # a doubtful literal, such as an unknown escape, is refused
            warnings.simplefilter("error")
            return ast.parse(text.strip())
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"genotype text: {type(error).__name__}: {error}") from error


def _is_genotype(node: ast.expr | None) -> bool:
    return (
        isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and "genotype" in node.func.id.lower()
    )


def _without_comma(node: ast.expr | None) -> ast.expr | None:
    """`x,` is a tuple of one: what a line of a list leaves behind."""
    if isinstance(node, ast.Tuple) and len(node.elts) == 1:
        return node.elts[0]
    return node


def _assigned(tree: ast.Module) -> dict[str, ast.Call]:
    """The genotypes that a file names, `NAME = Genotype(...)` and then `OTHER = NAME`."""
    calls: dict[str, ast.Call] = {}
    for statement in tree.body:
        target: ast.expr
        match statement:
            case ast.Assign(targets=[target], value=value):
                pass
            case ast.AnnAssign(target=target, value=value):
                pass
            case _:
                continue
        value = _without_comma(value)
        if not isinstance(target, ast.Name):
            continue
        if isinstance(value, ast.Name) and value.id in calls:
            calls[target.id] = calls[value.id]
        elif _is_genotype(value):
            assert isinstance(value, ast.Call)
            calls[target.id] = value
        else:
            calls.pop(target.id, None)  # the name stands for something else from here on
    return calls


def _named_call(tree: ast.Module, name: str) -> ast.Call:
    calls = _assigned(tree)
    if name not in calls:
        hint = did_you_mean(name, calls)
        known = ", ".join(calls) or "none"
        raise ValueError(f"no genotype is named {name!r}{hint}; the names are {known}")
    return calls[name]


def _only_call(tree: ast.Module) -> ast.Call:
    """The genotype of a Python text, where it is clear which one is meant."""
    calls = _assigned(tree)
    distinct = {id(call) for call in calls.values()}
    if len(distinct) > 1:
        raise ValueError(
            f"genotype text: it names {len(calls)} genotypes ({', '.join(calls)}); "
            "say which one, as in FILE:NAME"
        )
    if calls and all(_is_of_a_file(statement) for statement in tree.body):
        return next(iter(calls.values()))

    # A line of a log may happen to be Python: `best: Genotype(...)`. Nothing that could act may
    # stand beside it.
    last = None
    for node in _outside_genotypes(tree):
        if isinstance(node, ast.Call) and _is_genotype(node):
            last = node
            continue
        is_chained = isinstance(node, ast.Assign) and len(node.targets) > 1
        if is_chained or not isinstance(node, _WORDS):
            raise ValueError(_FORM)
    if last is None:
        raise ValueError(_FORM)
    return last


_WORDS = (
    ast.Module,
    ast.Expr,
    ast.Assign,
    ast.AnnAssign,
    ast.Tuple,
    ast.List,
    ast.Name,
    ast.Constant,
    ast.expr_context,
    ast.BinOp,
    ast.UnaryOp,
    ast.operator,
    ast.unaryop,
    ast.Compare,
    ast.cmpop,
)


def _is_of_a_file(statement: ast.stmt) -> bool:
    """Whether such a statement is expected beside the genotype of a file."""
    if isinstance(statement, ast.Expr):  # a docstring
        return isinstance(statement.value, ast.Constant)
    if isinstance(statement, ast.Assign):
        return len(statement.targets) == 1 and isinstance(statement.targets[0], ast.Name)
    return isinstance(statement, (ast.AnnAssign, ast.Import, ast.ImportFrom))


def _outside_genotypes(node: ast.AST) -> Iterator[ast.AST]:
    """All nodes in the order of the text, without the insides of genotypes."""
    yield node
    if isinstance(node, ast.expr) and _is_genotype(node):
        return
    for child in ast.iter_child_nodes(node):
        yield from _outside_genotypes(child)


def _last_call(text: str) -> ast.Call | None:
    """The last whole genotype in a text that is not Python, such as a log; None without one."""
    places = [found.start() for found in _CLASS.finditer(text)]
    for start in reversed(places[-_MAX_TRIES:]):
        piece = _balanced(text, start)
        if piece is None:
            continue
        try:
            tree = _parsed(piece)
        except ValueError:
            continue
        match tree.body:
            case [ast.Expr(value=ast.Call() as call)] if _is_genotype(call):
                return call
    return None


def _balanced(text: str, start: int) -> str | None:
    """From `start` to the bracket that closes the first one; None where none does."""
    depth = 0
    quote = ""
    for place in range(start, len(text)):
        character = text[place]
        if quote:
            is_end = character == quote and text[place - 1] != "\\"
            quote = "" if is_end else quote
        elif character in "'\"":
            quote = character
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
            if depth == 0:
                return text[start : place + 1]
    return None


# -- reading its parts -----------------------------------------------------------------------------


def _literal(node: ast.expr) -> Value:
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
        case ast.Call(
            func=ast.Name(id="list"),
            args=[ast.Call(func=ast.Name(id="range")) as inner],
            keywords=[],
        ):
            return _literal(inner)
        case ast.Call(
            func=ast.Name(id="range"),
            args=[ast.Constant(value=int() as start), ast.Constant(value=int() as stop)],
            keywords=[],
        ):
            if stop - start > _MAX_RANGE:
                raise ValueError(f"genotype text: range({start}, {stop}) is too long")
            return tuple(range(start, stop))
    raise ValueError(
        f"genotype text: {type(node).__name__} in line {node.lineno}, column {node.col_offset + 1};"
        " only lists, tuples, strings, numbers and range(a, b) are read"
    )


def edges_as_read(
    edges: Json, concat: Json, first: int, name: str
) -> tuple[Json, Json, tuple[int, ...] | None]:
    """Edges, concat and inputs per node of a cell, from any of the forms that are in use.

    (operation, predecessor)                  two a node, one after the other
    [(operation, predecessor), ...]           a list for each node
    (operation, predecessor, weight)          in either; the weight, a float, is left out
    (operation, node, predecessor)            nodes of any number of edges (FairDARTS, arXiv
                                              1911.12126); a node without any is left out
    What is none of these is returned as it is, for the validation to refuse.

    Args:
        first: number of the first node.
        name: of the cell, for errors.
    """
    is_listed = isinstance(edges, tuple) and all(isinstance(item, tuple) for item in edges)
    if not is_listed or not edges:
        return edges, concat, None
    is_nested = any(item and isinstance(item[0], tuple) for item in edges)
    if is_nested:
        flat: list[Json] = []
        for node in edges:
            flat.extend(_without_weight(edge) for edge in node)
        return tuple(flat), concat, tuple(len(node) for node in edges)
    if all(_is_placed(edge) for edge in edges):
        return _placed(edges, concat, first, name)
    return tuple(_without_weight(edge) for edge in edges), concat, None


def _without_weight(edge: Json) -> Json:
    is_weighted = isinstance(edge, tuple) and len(edge) == 3 and type(edge[2]) is float
    return edge[:2] if is_weighted else edge


def _is_placed(edge: tuple[Json, ...]) -> bool:
    """Whether an edge says which node it enters."""
    return len(edge) == 3 and type(edge[1]) is int and type(edge[2]) is int


def _placed(
    edges: Collection[tuple[Json, int, int]], concat: Json, first: int, name: str
) -> tuple[Json, Json, tuple[int, ...]]:
    by_node: dict[int, list[tuple[Json, int]]] = {}
    for operation, node, predecessor in edges:
        if node < first:
            raise ValueError(
                f"{name} cell: ({operation!r}, {node}, {predecessor}) is read as (operation, node, "
                f"predecessor), but the first node is {first}; "
                "a weight must be a float, such as 1.0"
            )
        by_node.setdefault(node, []).append((operation, predecessor))
    # As FairDARTS does it: a node without edges is no state and no part of the output.
    numbers = {state: state for state in range(first)}
    for place, node in enumerate(sorted(by_node)):
        numbers[node] = first + place
    flat = []
    for node in sorted(by_node):
        for operation, predecessor in by_node[node]:
            if predecessor not in numbers:
                raise ValueError(
                    f"{name} cell, node {node - first}: its predecessor {predecessor} has no edges"
                )
            flat.append((operation, numbers[predecessor]))
    if isinstance(concat, tuple):
        kept = []
        for node in concat:
            is_left_out = type(node) is int and node >= first and node not in by_node
            if not is_left_out:
                kept.append(numbers.get(node, node))
        concat = tuple(kept)
    return tuple(flat), concat, tuple(len(by_node[node]) for node in sorted(by_node))
