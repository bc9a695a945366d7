"""Genotypes: the discrete result of a cell search as a frozen value, with its JSON file and
original text.

The original text is the repr of a named tuple, `Genotype(normal=[('sep_conv_3x3', 0), ...], ...)`.
It is read by a literal parser on the syntax tree: text is parsed, never evaluated.
"""

from __future__ import annotations

import ast
import json
import os
import re
import secrets
import warnings
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias

from gradnas.config import did_you_mean

Kind: TypeAlias = Literal["conv", "recurrent"]
Edge: TypeAlias = tuple[str, int]  # (operation, predecessor)

FORMAT = "gradnas-genotype"
VERSION = 1
CELL_NAMES: dict[Kind, tuple[str, ...]] = {
    "conv": ("normal", "reduce"),
    "recurrent": ("recurrent",),
}
SPACE_NAMES: dict[Kind, str] = {"conv": "ConvCell", "recurrent": "RecurrentCell"}

# Bounds on the work that a hostile text can cause: a hundred times what the longest published
# genotype needs
_MAX_CHARACTERS = 100_000
_MAX_RANGE = 1_000


@dataclass(frozen=True)
class CellGenotype:
    """One cell. In a conv cell edges 2i and 2i+1 feed intermediate node i, which has index i+2 (0
    and 1 are the inputs c_{k-2} and c_{k-1}). In a recurrent cell edge i-1 feeds node i, and index
    0 is the state s0.

    Node indices in `concat` keep their order: it is the order of the output's channels. A cell is
    validated by the genotype that holds it, which knows its kind.
    """

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]


@dataclass(frozen=True)
class Genotype:
    """The cells of one architecture: `normal` and `reduce`, or `recurrent`.

    Raises ValueError when it is made of anything that is not a cell: wrong types, a predecessor
    that does not precede its node, an odd number of conv edges, an empty, repeated or impossible
    concat. Which operation names exist is the space's business.
    """

    cells: tuple[tuple[str, CellGenotype], ...]

    def __post_init__(self) -> None:
        for item in _checked_tuple(self.cells, "cells", "(name, CellGenotype) pairs"):
            if not (
                isinstance(item, tuple) and len(item) == 2 and isinstance(item[1], CellGenotype)
            ):
                raise ValueError(f"cells must hold (name, CellGenotype) pairs, not {item!r}")
        names = tuple(name for name, _ in self.cells)
        if names not in CELL_NAMES.values():
            raise ValueError(
                f"a genotype has the cells normal and reduce, or recurrent, not {names!r}"
            )
        for name, cell in self.cells:
            _check_cell(name, cell)

    # -- making one --------------------------------------------------------------------------------

    @classmethod
    def conv(
        cls,
        normal: Sequence[Edge],
        reduce: Sequence[Edge],
        normal_concat: Sequence[int] | None = None,
        reduce_concat: Sequence[int] | None = None,
    ) -> Genotype:
        """A convolutional genotype. Without a concat, the output of a cell is the concatenation of
        all its intermediate nodes. Raises ValueError as the class does."""
        return cls(
            (
                ("normal", _cell(normal, normal_concat, 2)),
                ("reduce", _cell(reduce, reduce_concat, 2)),
            )
        )

    @classmethod
    def recurrent_cell(cls, edges: Sequence[Edge], concat: Sequence[int] | None = None) -> Genotype:
        """A recurrent genotype from one (activation, predecessor) per node. Without a concat, the
        output is the mean of all nodes. Raises ValueError as the class does."""
        return cls((("recurrent", _cell(edges, concat, 1)),))

    @classmethod
    def named(cls, name: str) -> Genotype:
        """A published genotype. Raises ValueError, with the nearest name, for a name not in
        `names()`."""
        published = _ALIASES.get(name, name)
        if published in _CONV:
            normal, normal_concat, reduce, reduce_concat = _CONV[published]
            return cls.conv(_expand(normal), _expand(reduce), normal_concat, reduce_concat)
        if published in _RECURRENT:
            edges, concat = _RECURRENT[published]
            return cls.recurrent_cell(_expand(edges), concat)
        hint, known = did_you_mean(name, cls.names()), ", ".join(cls.names())
        raise ValueError(f"no published genotype is named {name!r}{hint}; the names are {known}")

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """Every name that `named` knows: the published genotypes, then the aliases."""
        return (*_CONV, *_RECURRENT, *_ALIASES)

    # -- reading one -------------------------------------------------------------------------------

    @property
    def kind(self) -> Kind:
        return "conv" if self.cells[0][0] == "normal" else "recurrent"

    def cell(self, name: str) -> CellGenotype:
        """The cell of this name. Raises AttributeError if this kind of genotype has none."""
        for own, cell in self.cells:
            if own == name:
                return cell
        raise AttributeError(
            f"a {self.kind} genotype has no {name} cell, only {_listed(dict(self.cells))}"
        )

    def inputs(self, name: str) -> tuple[tuple[Edge, ...], ...]:
        """The incoming edges of every intermediate node of a cell, in the order of the nodes."""
        edges = self.cell(name).edges
        fan_in = 2 if self.kind == "conv" else 1
        return tuple(edges[i : i + fan_in] for i in range(0, len(edges), fan_in))

    @property
    def normal(self) -> tuple[Edge, ...]:
        return self.cell("normal").edges

    @property
    def normal_concat(self) -> tuple[int, ...]:
        return self.cell("normal").concat

    @property
    def reduce(self) -> tuple[Edge, ...]:
        return self.cell("reduce").edges

    @property
    def reduce_concat(self) -> tuple[int, ...]:
        return self.cell("reduce").concat

    @property
    def recurrent(self) -> tuple[Edge, ...]:
        return self.cell("recurrent").edges

    @property
    def concat(self) -> tuple[int, ...]:
        return self.cell("recurrent").concat

    # -- text --------------------------------------------------------------------------------------

    def to_text(self) -> str:
        """The original text form, as Python 3 printed it: a contiguous concat is a range."""
        fields = []
        for name, cell in self.cells:
            edges, concat = _text_fields(name)
            fields += [f"{edges}={list(cell.edges)!r}", f"{concat}={_concat_text(cell.concat)}"]
        return f"Genotype({', '.join(fields)})"

    __str__ = to_text

    @classmethod
    def parse(cls, text: str) -> Genotype:
        """Read the original text form, with line breaks or without, and with or without `NAME =`
        before it.

        Only `Genotype(field=...)`, lists, tuples, strings, integers and `range(a, b)` are read;
        nothing is evaluated. Raises ValueError for everything else.
        """
        call = _genotype_call(text)
        fields = {keyword.arg: _literal(keyword.value) for keyword in call.keywords}
        names = CELL_NAMES["recurrent" if "recurrent" in fields else "conv"]
        _check_fields(
            fields, [field for name in names for field in _text_fields(name)], "genotype text"
        )
        return cls(
            tuple((name, _cell(*(fields[field] for field in _text_fields(name)))) for name in names)
        )

    # -- JSON --------------------------------------------------------------------------------------

    def to_json(self) -> dict[str, Any]:
        """The genotype as a dict of JSON types; `from_json` reads it back."""
        head: dict[str, Any] = {
            "format": FORMAT,
            "version": VERSION,
            "space": SPACE_NAMES[self.kind],
        }
        return head | {
            name: {"edges": [list(edge) for edge in cell.edges], "concat": list(cell.concat)}
            for name, cell in self.cells
        }

    @classmethod
    def from_json(cls, obj: Any, where: str = "genotype") -> Genotype:
        """The genotype that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """
        if not isinstance(obj, dict):
            raise ValueError(f"{where} must be an object, not {_type(obj)}")
        found, version, space = obj.get("format"), obj.get("version"), obj.get("space")
        if found != FORMAT:
            raise ValueError(f"{where}: field 'format' must be {FORMAT!r}, not {found!r}")
        if type(version) is not int or version != VERSION:
            raise ValueError(
                f"{where}: field 'version' must be {VERSION}, the one read here, not {version!r}"
            )
        kinds = {name: kind for kind, name in SPACE_NAMES.items()}
        if not isinstance(space, str) or space not in kinds:
            hint = did_you_mean(str(space), kinds)
            raise ValueError(
                f"{where}: field 'space' must be {_listed(kinds)}, not {space!r}{hint}"
            )
        names = CELL_NAMES[kinds[space]]
        _check_fields(obj, ["format", "version", "space", *names], where)
        for name in names:
            if not isinstance(obj[name], dict):
                raise ValueError(
                    f"{where}: field {name!r} must be an object, not {_type(obj[name])}"
                )
            _check_fields(obj[name], ["edges", "concat"], f"{where}: field {name!r}")
            for field, value in obj[name].items():
                if not isinstance(value, (list, tuple)):
                    raise ValueError(
                        f"{where}: field '{name}.{field}' must be a list, not {_type(value)}"
                    )
        try:
            return cls(
                tuple((name, _cell(obj[name]["edges"], obj[name]["concat"])) for name in names)
            )
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error

    # -- files -------------------------------------------------------------------------------------

    def save(self, path: Path | str) -> None:
        """Write the JSON file; a reader sees the old file or the whole new one. Raises OSError."""
        write_text_atomically(Path(path), readable_json(self.to_json()))

    @classmethod
    def load(cls, path: Path | str) -> Genotype:
        """Read a JSON file of `save`, or a file with the original text form.

        Raises ValueError, naming the file, if it holds neither, and OSError if it cannot be read.
        """
        try:
            text = Path(path).read_text(encoding="utf-8-sig")
            if text.lstrip().startswith(("{", "[")):  # no text form does
                return cls.from_json(json.loads(text))
            return cls.parse(text)
        except (
            ValueError,
            RecursionError,
        ) as error:  # the errors of JSON and of Unicode are ValueErrors
            raise ValueError(f"{path} does not hold a genotype: {error}") from error


# -- validation ------------------------------------------------------------------------------------


def _check_cell(name: str, cell: CellGenotype) -> None:
    conv = name != "recurrent"
    edges = _checked_tuple(cell.edges, f"{name} cell: edges", "(operation, predecessor) pairs")
    concat = _checked_tuple(cell.concat, f"{name} cell: concat", "node indices")
    if not edges:
        raise ValueError(
            f"{name} cell: it has no edges; it needs {'two' if conv else 'one'} per node"
        )
    if conv and len(edges) % 2:
        raise ValueError(f"{name} cell: {len(edges)} edges are an odd number; every node needs two")
    for number, edge in enumerate(edges):
        node, last = (number // 2, number // 2 + 1) if conv else (number + 1, number)
        _check_edge(f"{name} cell, node {node}, edge {number}", edge, last)
    first, last = (2, len(edges) // 2 + 1) if conv else (1, len(edges))
    if not concat:
        raise ValueError(
            f"{name} cell: concat is empty; it needs at least one of the nodes {first}..{last}"
        )
    for index in concat:
        if type(index) is not int or not first <= index <= last:
            raise ValueError(
                f"{name} cell: concat index {index!r} is not one of the nodes {first}..{last}"
            )
    if len(set(concat)) < len(concat):
        raise ValueError(f"{name} cell: concat {list(concat)} names a node twice")


def _check_edge(where: str, edge: object, last: int) -> None:
    """`last` is the largest index of a state that exists before the edge's node."""
    if not (isinstance(edge, tuple) and len(edge) == 2):
        raise ValueError(f"{where}: {edge!r} is not an (operation, predecessor) pair")
    operation, predecessor = edge
    if not isinstance(operation, str) or not operation:
        raise ValueError(f"{where}: the operation must be a non-empty string, not {operation!r}")
    if type(predecessor) is not int:  # isinstance would let True pass
        raise ValueError(f"{where}: the predecessor must be an int, not {predecessor!r}")
    if not 0 <= predecessor <= last:
        raise ValueError(
            f"{where}: predecessor {predecessor} does not precede it; it must be in 0..{last}"
        )


def _checked_tuple(value: object, what: str, of: str) -> tuple[Any, ...]:
    if not isinstance(value, tuple):
        raise ValueError(f"{what} must be a tuple of {of}, not {_type(value)}")
    return value


def _check_fields(fields: Collection[Any], expected: list[str], where: str) -> None:
    for field in fields:
        if field not in expected:
            raise ValueError(
                f"{where}: unknown field {field!r}{did_you_mean(str(field), expected)}"
            )
    missing = [field for field in expected if field not in fields]
    if missing:
        raise ValueError(f"{where}: missing field {', '.join(repr(field) for field in missing)}")


def _type(value: object) -> str:
    return "null" if value is None else type(value).__name__


def _listed(names: Collection[str]) -> str:
    return " or ".join(repr(name) for name in names)


# -- making and writing cells ----------------------------------------------------------------------


def _cell(edges: Any, concat: Any, fan_in: int | None = None) -> CellGenotype:
    """A cell, not validated. With a fan-in, a concat of None means all nodes."""
    if concat is None and fan_in is not None and isinstance(edges, (list, tuple)):
        concat = range(
            fan_in, len(edges) // fan_in + fan_in
        )  # the first node is 2 in conv cells, else 1
    return CellGenotype(edges=_tuples(edges), concat=_tuples(concat))


def _tuples(value: Any) -> Any:
    """Lists and ranges as tuples, two levels deep; everything else as it is, for the validation to
    refuse."""
    if not isinstance(value, (list, tuple, range)):
        return value
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _text_fields(name: str) -> tuple[str, str]:
    return (name, "concat" if name == "recurrent" else f"{name}_concat")


def _concat_text(concat: tuple[int, ...]) -> str:
    run = range(concat[0], concat[0] + len(concat))
    return repr(run) if concat == tuple(run) else repr(list(concat))


def readable_json(obj: dict[str, Any]) -> str:
    """Indented, but each innermost list on one line. A line break never lies inside a JSON
    string."""
    return re.sub(
        r"\[\n\s*([^\[\]]*)\n\s*\]",
        lambda found: "[" + re.sub(r"\n\s*", " ", found[1]) + "]",
        json.dumps(obj, indent=2) + "\n",
    )


def write_text_atomically(path: Path, text: str) -> None:
    # Not `runs.write_atomically`: that module needs torch, and a genotype the standard library
    # alone
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("x", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:  # after an error or Ctrl-C; after the rename there is nothing to remove
        temporary.unlink(missing_ok=True)


# -- the literal parser ----------------------------------------------------------------------------


def _genotype_call(text: object) -> ast.Call:
    if not isinstance(text, str):
        raise ValueError(f"a genotype text is a str, not {_type(text)}")
    if len(text) > _MAX_CHARACTERS:
        raise ValueError(f"genotype text: {len(text)} characters, more than {_MAX_CHARACTERS}")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter(
                "error"
            )  # a doubtful literal, such as an unknown escape, is refused
            body = ast.parse(text.strip()).body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"genotype text: {type(error).__name__}: {error}") from error
    match body:
        case [ast.Expr(value=ast.Call(func=ast.Name(id="Genotype")) as call)] | [
            ast.Assign(targets=[ast.Name()], value=ast.Call(func=ast.Name(id="Genotype")) as call)
        ]:
            names = [keyword.arg for keyword in call.keywords]  # None stands for **
            if call.args or None in names:
                raise ValueError(
                    "genotype text: every part must have a field name, as in normal=[...]"
                )
            if len(set(names)) < len(names):
                raise ValueError("genotype text: a field is given twice")
            return call
    raise ValueError("a genotype text reads Genotype(normal=[('sep_conv_3x3', 0), ...], ...)")


def _literal(node: ast.expr) -> Any:
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


# -- published genotypes ---------------------------------------------------------------------------

_SHORT = {
    "s3": "sep_conv_3x3",
    "s5": "sep_conv_5x5",
    "s7": "sep_conv_7x7",
    "d3": "dil_conv_3x3",
    "d5": "dil_conv_5x5",
    "mp": "max_pool_3x3",
    "ap": "avg_pool_3x3",
    "sk": "skip_connect",
    "c7": "conv_7x1_1x7",
}


def _expand(text: str) -> tuple[Edge, ...]:
    """'s3.1 sk.0 / d3.2 mp.0' as edges; a name that is not an abbreviation stands for itself."""
    pairs = (word.split(".") for word in text.replace("/", " ").split())
    return tuple(
        (_SHORT.get(operation, operation), int(predecessor)) for operation, predecessor in pairs
    )


# name: normal, its concat, reduce, its concat. A slash stands between nodes.
_CONV: dict[str, tuple[str, tuple[int, ...], str, tuple[int, ...]]] = {
    # NASNet-A. Zoph, Vasudevan, Shlens, Le 2018, arXiv:1707.07012, in the form of the DARTS code
    "NASNet": (
        "s5.1 s3.0 / s5.0 s3.0 / ap.1 sk.0 / ap.0 ap.0 / s3.1 sk.1",
        (2, 3, 4, 5, 6),
        "s5.1 s7.0 / mp.1 s7.0 / ap.1 s5.0 / sk.3 ap.2 / s3.2 mp.1",
        (4, 5, 6),
    ),
    # AmoebaNet-A. Real, Aggarwal, Huang, Le 2019, arXiv:1802.01548, in the form of the DARTS code
    "AmoebaNet": (
        "ap.0 mp.1 / s3.0 s5.2 / s3.0 ap.3 / s3.1 sk.1 / sk.0 ap.1",
        (4, 5, 6),
        "ap.0 s3.1 / mp.0 s7.2 / s7.0 ap.1 / mp.0 mp.1 / c7.0 s3.5",
        (3, 4, 6),
    ),
    # DARTS, first order, CIFAR-10. Liu, Simonyan, Yang 2019, arXiv:1806.09055
    "DARTS_V1": (
        "s3.1 s3.0 / sk.0 s3.1 / sk.0 s3.1 / s3.0 sk.2",
        (2, 3, 4, 5),
        "mp.0 mp.1 / sk.2 mp.0 / mp.0 sk.2 / sk.2 ap.0",
        (2, 3, 4, 5),
    ),
    # DARTS, second order, CIFAR-10. As above, figures 4 and 5
    "DARTS_V2": (
        "s3.0 s3.1 / s3.0 s3.1 / s3.1 sk.0 / sk.0 d3.2",
        (2, 3, 4, 5),
        "mp.0 mp.1 / sk.2 mp.1 / mp.0 sk.2 / sk.2 mp.1",
        (2, 3, 4, 5),
    ),
    # PC-DARTS, searched on CIFAR-10. Xu, Xie, Zhang, Chen, Qi, Tian, Xiong 2020, arXiv:1907.05737
    "PC_DARTS_cifar": (
        "s3.1 sk.0 / s3.0 d3.1 / s5.0 s3.1 / ap.0 d3.1",
        (2, 3, 4, 5),
        "s5.1 mp.0 / s5.1 s5.2 / s3.0 s3.3 / s3.1 s3.2",
        (2, 3, 4, 5),
    ),
    # PC-DARTS, searched on ImageNet. As above
    "PC_DARTS_image": (
        "sk.1 s3.0 / s3.0 sk.1 / s3.1 s3.3 / s3.1 d5.4",
        (2, 3, 4, 5),
        "s3.0 sk.1 / d5.2 mp.1 / s3.2 s3.1 / s5.0 s3.3",
        (2, 3, 4, 5),
    ),
}

# name: edges, concat
_RECURRENT: dict[str, tuple[str, tuple[int, ...]]] = {
    # DARTS, first order, Penn Treebank. Liu, Simonyan, Yang 2019, arXiv:1806.09055
    "DARTS_V1_recurrent": (
        "relu.0 / relu.1 / tanh.2 / relu.3 / relu.4 / identity.1 / relu.5 / relu.1",
        (1, 2, 3, 4, 5, 6, 7, 8),
    ),
    # DARTS, second order, Penn Treebank. As above, figure 6
    "DARTS_V2_recurrent": (
        "sigmoid.0 / relu.1 / relu.1 / identity.1 / tanh.2 / sigmoid.5 / tanh.3 / relu.5",
        (1, 2, 3, 4, 5, 6, 7, 8),
    ),
    # ENAS, Penn Treebank. Pham, Guan, Zoph, Le, Dean 2018, arXiv:1802.03268, in the form of the
    # DARTS code
    "ENAS": (
        "tanh.0 / tanh.1 / relu.1 / tanh.3 / tanh.3 / relu.3 / relu.4 / relu.7 / relu.8 / relu.8 / relu.8",
        (2, 5, 6, 9, 10, 11),
    ),
}

_ALIASES = {"DARTS": "DARTS_V2", "DARTS_recurrent": "DARTS_V2_recurrent"}
