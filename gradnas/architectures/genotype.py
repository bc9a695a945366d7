"""Genotypes: the discrete result of a cell search as a frozen value, with its JSON file and
original text."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from gradnas.architectures.base import (
    Architecture,
    check_complete,
    check_known,
    checked_object,
    is_version,
    type_word,
)
from gradnas.architectures.cell_forms import (
    CELL_FORMS,
    CONV,
    RECURRENT,
    CellForm,
    GenotypeKind,
    check_cell,
    checked_tuple,
)
from gradnas.architectures.genotype_text import (
    concat_text,
    edges_as_read,
    read_fields,
    resembles_genotype,
)
from gradnas.architectures.published import GENOTYPES
from gradnas.config import Json, JsonObject, did_you_mean, read_text

Edge: TypeAlias = tuple[str, int]  # (operation, predecessor)

VERSION = 1


@dataclass(frozen=True)
class CellGenotype:
    """One cell. In a conv cell edges 2i and 2i+1 feed intermediate node i, which has index i+2 (0
    and 1 are the inputs c_{k-2} and c_{k-1}). In a recurrent cell edge i-1 feeds node i, and index
    0 is the state s0.

    Node indices in `concat` keep their order: it is the order of the output's channels. A cell is
    validated by the genotype that holds it, which knows its kind.

    Attributes:
        inputs_per_node: edges into every node, where a conv cell has another number than two
            somewhere (FairDARTS, arXiv 1911.12126); edges then stand in the order of the nodes.
    """

    edges: tuple[Edge, ...]
    concat: tuple[int, ...]
    inputs_per_node: tuple[int, ...] | None = None


class _OriginalFields:
    """The fields of the original named tuples. AttributeError where a genotype has no such cell."""

    @abstractmethod
    def cell(self, name: str) -> CellGenotype:
        """The cell of this name."""

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


@dataclass(frozen=True)
class Genotype(_OriginalFields, Architecture):
    """The cells of one architecture: `normal` and `reduce`, or `recurrent`.

    Raises ValueError when it is made of anything that is not a cell: wrong types, a predecessor
    that does not precede its node, an odd number of conv edges, an empty, repeated or impossible
    concat. Which operation names exist is the space's business.
    """

    cells: tuple[tuple[str, CellGenotype], ...]

    format: ClassVar[str] = "gradnas-genotype"
    noun: ClassVar[str] = "genotype"
    published_texts: ClassVar[Mapping[str, str]] = GENOTYPES

    def __post_init__(self) -> None:
        names = []
        for item in checked_tuple(self.cells, "cells", "(name, CellGenotype) pairs"):
            is_pair = isinstance(item, tuple) and len(item) == 2
            if not (is_pair and isinstance(item[1], CellGenotype)):
                raise ValueError(f"cells must hold (name, CellGenotype) pairs, not {item!r}")
            names.append(item[0])
        if tuple(names) not in [tuple(form.concats) for form in CELL_FORMS]:
            raise ValueError(
                f"a genotype has the cells normal and reduce, or recurrent, not {tuple(names)!r}"
            )
        for name, cell in self.cells:
            check_cell(self.form, name, cell.edges, cell.concat, cell.inputs_per_node)

    # -- making one --------------------------------------------------------------------------------

    @classmethod
    def conv(
        cls,
        normal: Sequence[Edge],
        reduce: Sequence[Edge],
        normal_concat: Sequence[int] | None = None,
        reduce_concat: Sequence[int] | None = None,
    ) -> Genotype:
        """A convolutional genotype.

        Without a concat, the output of a cell is the concatenation of all its intermediate nodes.
        Raises ValueError as the class does.
        """
        normal_cell = _cell(normal, normal_concat, CONV)
        reduce_cell = _cell(reduce, reduce_concat, CONV)
        return cls((("normal", normal_cell), ("reduce", reduce_cell)))

    @classmethod
    def recurrent_cell(cls, edges: Sequence[Edge], concat: Sequence[int] | None = None) -> Genotype:
        """A recurrent genotype from one (activation, predecessor) per node.

        Without a concat, the output is the mean of all nodes. Raises ValueError as the class does.
        """
        return cls((("recurrent", _cell(edges, concat, RECURRENT)),))

    # -- reading one -------------------------------------------------------------------------------

    @property
    def form(self) -> CellForm:
        """How its cells are numbered and written."""
        first_cell, _ = self.cells[0]
        return next(form for form in CELL_FORMS if first_cell in form.concats)

    @property
    def kind(self) -> GenotypeKind:
        """`conv` or `recurrent`."""
        return self.form.kind

    def cell(self, name: str) -> CellGenotype:
        """The cell of this name. Raises AttributeError if this kind of genotype has none."""
        for own, cell in self.cells:
            if own == name:
                return cell
        known = _listed([own for own, _ in self.cells])
        raise AttributeError(f"a {self.kind} genotype has no {name} cell, only {known}")

    def inputs(self, name: str) -> tuple[tuple[Edge, ...], ...]:
        """The incoming edges of every intermediate node of a cell, in the order of the nodes."""
        cell = self.cell(name)
        return edges_by_node(cell, self.form)

    @property
    def num_nodes(self) -> int:
        """Intermediate nodes of its largest cell."""
        return max(len(self.inputs(name)) for name, _ in self.cells)

    # -- text --------------------------------------------------------------------------------------

    def parts(self) -> dict[str, str]:
        """For every node the operations that lead into it, each with where it comes from."""
        found = {}
        for cell, _ in self.cells:
            for node, edges in enumerate(self.inputs(cell), 1):
                in_order = sorted(edges, key=lambda edge: (edge[1], edge[0]))
                shown = [f"{name}({start})" for name, start in in_order]
                found[f"{cell} node {node}"] = " + ".join(shown)
        return found

    def to_text(self) -> str:
        """The original text form, as Python 3 printed it: a contiguous concat is a range.

        Cells that have not two edges in every node are written with a list for each node.
        """
        parts = []
        for name, cell in self.cells:
            edges: list[Any] = list(cell.edges)
            if cell.inputs_per_node is not None:
                edges = [list(node) for node in self.inputs(name)]
            parts.append(f"{name}={edges!r}")
            parts.append(f"{self.form.concats[name]}={concat_text(cell.concat)}")
        return f"Genotype({', '.join(parts)})"

    @classmethod
    def parse(cls, text: str, name: str | None = None) -> Genotype:
        """Read the original text form, in one line or many, with or without `NAME =` before it.

        Read are also other class names with `Genotype` in them, a list of edges for each node,
        edges with a weight and edges that name their node; of a log the last genotype. Only lists,
        tuples, strings, numbers and `range(a, b)` are read; nothing is evaluated.

        Args:
            name: of the genotype that is meant, in the text of a Python file of several.

        Raises ValueError for everything else.
        """
        fields = read_fields(text, name)
        own_form = CONV  # what names no cell at all is refused as such cells
        for form in CELL_FORMS:
            if any(cell_name in fields for cell_name in form.concats):
                own_form = form
        needed: list[str] = []
        for cell_name, concat_field in own_form.concats.items():
            needed.extend((cell_name, concat_field))
        check_known(fields, needed, "genotype text")
        has_reduction = "reduce" in fields or "reduce_concat" in fields
        if "normal" in fields and not has_reduction:
            raise ValueError(
                "genotype text: there is no reduction cell (missing field 'reduce', "
                "'reduce_concat'), and the networks need one: say which cell stands there"
            )
        check_complete(fields, needed, "genotype text")
        cells = []
        for cell_name, concat_field in own_form.concats.items():
            edges, concat, per_node = edges_as_read(
                fields[cell_name], fields[concat_field], own_form.inputs, cell_name
            )
            cells.append((cell_name, _cell(edges, concat, per_node=per_node)))
        return cls(tuple(cells))

    @classmethod
    def resembles(cls, text: str) -> bool:
        """Whether a text speaks of a `Genotype`, as the named tuple is called too."""
        return cls.__name__ in text or resembles_genotype(text)

    @classmethod
    def load_named(cls, path: Path | str, name: str) -> Genotype:
        """The genotype that a Python file calls `name`; the file is read and never run.

        Raises ValueError, naming the file, where it names no such genotype or cannot be read.
        """
        text = read_text(path)
        try:
            return cls.parse(text, name)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error

    # -- JSON --------------------------------------------------------------------------------------

    def to_json(self) -> JsonObject:
        """The genotype as a dict of JSON types; `from_json` reads it back."""
        obj: JsonObject = {
            "format": self.format,
            "version": VERSION,
            "space": self.form.space,
        }
        for name, cell in self.cells:
            edges = [list(edge) for edge in cell.edges]
            obj[name] = {"edges": edges, "concat": list(cell.concat)}
            if cell.inputs_per_node is not None:
                obj[name]["inputs_per_node"] = list(cell.inputs_per_node)
        return obj

    @classmethod
    def from_json(cls, obj: Json, where: str = "genotype") -> Genotype:
        """The genotype that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """
        obj = checked_object(obj, cls.format, where)
        version = obj.get("version")
        if not is_version(version, VERSION):
            raise ValueError(
                f"{where}: field 'version' must be {VERSION}, the one read here, not {version!r}"
            )
        space = obj.get("space")
        forms = {form.space: form for form in CELL_FORMS}
        if not isinstance(space, str) or space not in forms:
            hint = did_you_mean(str(space), forms)
            raise ValueError(
                f"{where}: field 'space' must be {_listed(forms)}, not {space!r}{hint}"
            )
        names = forms[space].concats
        fields = ("format", "version", "space", *names)
        check_known(obj, fields, where)
        check_complete(obj, fields, where)
        cells = [(name, _cell_from_json(obj[name], name, where)) for name in names]
        try:
            return cls(tuple(cells))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


# -- making cells ----------------------------------------------------------------------------------


def edges_by_node(cell: CellGenotype, form: CellForm = CONV) -> tuple[tuple[Edge, ...], ...]:
    """The incoming edges of every intermediate node, in the order of the nodes."""
    counts = cell.inputs_per_node
    if counts is None:
        counts = (form.inputs,) * (len(cell.edges) // form.inputs)
    groups = []
    first = 0
    for count in counts:
        groups.append(cell.edges[first : first + count])
        first += count
    return tuple(groups)


def _cell(
    edges: Json, concat: Json, form: CellForm | None = None, per_node: Json = None
) -> CellGenotype:
    """A cell, not validated. With a form, a concat of None means all nodes."""
    if concat is None and form is not None and isinstance(edges, (list, tuple)):
        concat = form.nodes(len(edges))
    counts = _tuples(per_node)
    if isinstance(counts, tuple) and all(count == CONV.inputs for count in counts):
        # Equal cells are equal values, however they were written.
        counts = None
    return CellGenotype(edges=_tuples(edges), concat=_tuples(concat), inputs_per_node=counts)


def _tuples(value: Json) -> Json:
    """Lists and ranges as tuples, two levels deep; everything else as it is, for the validation to
    refuse."""
    if not isinstance(value, (list, tuple, range)):
        return value
    return tuple(tuple(item) if isinstance(item, list) else item for item in value)


def _cell_from_json(obj: Json, name: str, where: str) -> CellGenotype:
    if not isinstance(obj, dict):
        raise ValueError(f"{where}: field {name!r} must be an object, not {type_word(obj)}")
    check_known(obj, ("edges", "concat", "inputs_per_node"), f"{where}: field {name!r}")
    check_complete(obj, ("edges", "concat"), f"{where}: field {name!r}")
    for field, value in obj.items():
        if not isinstance(value, (list, tuple)):
            raise ValueError(
                f"{where}: field '{name}.{field}' must be a list, not {type_word(value)}"
            )
    return _cell(obj["edges"], obj["concat"], per_node=obj.get("inputs_per_node"))


def _listed(names: Collection[str]) -> str:
    return " or ".join(map(repr, names))
