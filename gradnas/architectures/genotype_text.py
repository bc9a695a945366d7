"""The original text form of a genotype, `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`.

It is the repr of a named tuple, and is read by a literal parser on the syntax tree: text is parsed,
never evaluated.
"""

from __future__ import annotations

import ast
import warnings

from gradnas.architectures.base import MAX_CHARACTERS, type_word

Value = str | int | tuple["Value", ...]

# A bound on the work that a hostile text can cause: no published concat is longer than 8
_MAX_RANGE = 1_000


def concat_text(concat: tuple[int, ...]) -> str:
    """As Python 3 printed it: a contiguous concat is a range."""
    run = range(concat[0], concat[0] + len(concat))
    return repr(run) if concat == tuple(run) else repr(list(concat))


def read_fields(text: object) -> dict[str, Value]:
    """The fields of the named tuple: texts, integers and tuples of them.

    Raises ValueError for everything but `Genotype(field=...)` of lists, tuples, strings, integers
    and `range(a, b)`, with `NAME =` before it or without.
    """
    return {str(part.arg): _literal(part.value) for part in _genotype_call(text).keywords}


def _genotype_call(text: object) -> ast.Call:
    if not isinstance(text, str):
        raise ValueError(f"a genotype text is a str, not {type_word(text)}")
    if len(text) > MAX_CHARACTERS:
        raise ValueError(f"genotype text: {len(text)} characters, more than {MAX_CHARACTERS}")
    try:
        with warnings.catch_warnings():
            # a doubtful literal, such as an unknown escape, is refused
            warnings.simplefilter("error")
            body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"genotype text: {type(error).__name__}: {error}") from error
    match body:
        case [ast.Expr(value=ast.Call(func=ast.Name(id="Genotype")) as call)]:
            pass
        case [
            ast.Assign(targets=[ast.Name()], value=ast.Call(func=ast.Name(id="Genotype")) as call)
        ]:
            pass
        case _:
            raise ValueError(
                "a genotype text reads Genotype(normal=[('sep_conv_3x3', 0), ...], ...)"
            )
    names = [keyword.arg for keyword in call.keywords]
    if call.args or None in names:  # None stands for **
        raise ValueError("genotype text: every part must have a field name, as in normal=[...]")
    if len(set(names)) < len(names):
        raise ValueError("genotype text: a field is given twice")
    return call


def _literal(node: ast.expr) -> Value:
    match node:
        case ast.Constant(value=str() | int() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() as value)):
            return -value
        case ast.List(elts=items) | ast.Tuple(elts=items):
            return tuple(_literal(item) for item in items)
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
        " only lists, tuples, strings, integers and range(a, b) are read"
    )
