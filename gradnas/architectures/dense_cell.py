"""Dense cells: every node reads every earlier one by an operation, as in NAS-Bench-201.

The text form is that of the benchmark (Dong and Yang, ICLR 2020, arXiv 2001.00326): nodes are
joined by `+`, and each lists its operations with the node that they read,
`|op~0|+|op~0|op~1|+|op~0|op~1|op~2|`. Node 0 is the cell's input, the last one its output.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar, TypeAlias

from gradnas.architectures.base import (
    MAX_CHARACTERS,
    Architecture,
    check_complete,
    check_known,
    checked_object,
    is_version,
)
from gradnas.config import Json, JsonObject

# For each node after the input the operations that it reads nodes 0, 1, ... by
Nodes: TypeAlias = tuple[tuple[str, ...], ...]

VERSION = 1
SPACE_NAME = "NasBench201"
MOST_NODES = 64  # a bound on the work that a hostile text can cause

_NAME = re.compile(r"[^\s|~+.]+")
_FIELDS = ("format", "version", "space", "nodes")


@dataclass(frozen=True)
class DenseCell(Architecture):
    """The operation of every edge of a cell whose nodes read all earlier ones.

    Raises ValueError when it is made of anything else: wrong types, a node with another number of
    operations than there are nodes before it, a name with a sign of the text form in it. Which
    operations exist is the space's business.

    Attributes:
        nodes: for every node after the input the operations by which it reads nodes 0, 1, ... in
            their order; the first has one, the second two.
    """

    nodes: Nodes

    format: ClassVar[str] = "gradnas-dense-cell"
    noun: ClassVar[str] = "cell"

    def __post_init__(self) -> None:
        if not _is_nodes(self.nodes):
            raise ValueError(f"nodes must be a tuple of tuples of operations, not {self.nodes!r}")
        if not 1 <= len(self.nodes) <= MOST_NODES:
            raise ValueError(
                f"a cell has 1 to {MOST_NODES} nodes beside its input, not {len(self.nodes)}"
            )
        for node, operations in enumerate(self.nodes, 1):
            if len(operations) != node:
                raise ValueError(
                    f"node {node} reads every node before it, by {node} operations, "
                    f"not {len(operations)}"
                )
            for name in operations:
                if not isinstance(name, str) or not _NAME.fullmatch(name):
                    raise ValueError(
                        f"node {node}: an operation is a name without spaces and '|', '~', '+' "
                        f"or '.', not {name!r}"
                    )

    @classmethod
    def of(cls, operations: Sequence[str]) -> DenseCell:
        """The cell of these operations, edge by edge: into node 1, then into node 2, ...

        Raises ValueError where no cell has so many edges.
        """
        nodes = []
        first = 0
        while first < len(operations):
            count = len(nodes) + 1
            nodes.append(tuple(operations[first : first + count]))
            first += count
        if first != len(operations):
            raise ValueError(f"no dense cell has {len(operations)} edges: it has 1, 3, 6, 10, ...")
        return cls(tuple(nodes))

    @property
    def operations(self) -> tuple[str, ...]:
        """All of them, edge by edge: into node 1, then into node 2, ..."""
        return tuple(name for _, _, name in self.edges())

    def edges(self) -> Iterator[tuple[int, int, str]]:
        """(node that is read, node that reads, operation) of every edge."""
        for node, operations in enumerate(self.nodes, 1):
            for source, name in enumerate(operations):
                yield source, node, name

    def is_cut(self, passes_nothing: Callable[[int, str], bool]) -> bool:
        """Whether nothing of the input reaches the output.

        Args:
            passes_nothing: (edge, from 0 in the order of `edges`; its operation) -> whether it
                gives zeros whatever it is given.
        """
        reached = {0}
        for row, (source, node, name) in enumerate(self.edges()):
            if source in reached and not passes_nothing(row, name):
                reached.add(node)
        return len(self.nodes) not in reached

    # -- text --------------------------------------------------------------------------------------

    def parts(self) -> dict[str, str]:
        """For every edge its operation."""
        return {f"edge {source} to {node}": name for source, node, name in self.edges()}

    def to_text(self) -> str:
        """The text form of NAS-Bench-201; `parse` reads it back."""
        nodes = []
        for operations in self.nodes:
            entries = [f"{name}~{source}" for source, name in enumerate(operations)]
            nodes.append("|" + "|".join(entries) + "|")
        return "+".join(nodes)

    @classmethod
    def parse(cls, text: str) -> DenseCell:
        """Read the text form. The operations of a node may stand in any order.

        Raises ValueError for everything else.
        """
        if not isinstance(text, str):
            raise ValueError(f"a cell's text is a str, not {type(text).__name__}")
        if len(text) > MAX_CHARACTERS:
            raise ValueError(f"cell text: {len(text)} characters, more than {MAX_CHARACTERS}")
        nodes = []
        for node, part in enumerate(text.strip().split("+"), 1):
            nodes.append(_operations_in(part.strip(), node))
        return cls(tuple(nodes))

    @classmethod
    def resembles(cls, text: str) -> bool:
        """Whether a text says by which operation a node is read."""
        return "|" in text and "~" in text

    # -- JSON --------------------------------------------------------------------------------------

    def to_json(self) -> JsonObject:
        """The cell as a dict of JSON types; `from_json` reads it back."""
        return {
            "format": self.format,
            "version": VERSION,
            "space": SPACE_NAME,
            "nodes": [list(operations) for operations in self.nodes],
        }

    @classmethod
    def from_json(cls, obj: Json, where: str = "cell") -> DenseCell:
        """The cell that `obj` describes; errors name it `where`.

        Raises ValueError, naming the field, for an unknown or missing field, a wrong type or value.
        """
        obj = checked_object(obj, cls.format, where)
        if not is_version(obj.get("version"), VERSION):
            raise ValueError(
                f"{where}: field 'version' must be {VERSION}, not {obj.get('version')!r}"
            )
        if obj.get("space") != SPACE_NAME:
            raise ValueError(
                f"{where}: field 'space' must be {SPACE_NAME!r}, not {obj.get('space')!r}"
            )
        check_known(obj, _FIELDS, where)
        check_complete(obj, _FIELDS, where)
        nodes = obj["nodes"]
        if not isinstance(nodes, list) or not all(isinstance(node, list) for node in nodes):
            raise ValueError(
                f"{where}: field 'nodes' must be a list of lists of operations, not {nodes!r:.100}"
            )
        try:
            return cls(tuple(tuple(node) for node in nodes))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def _operations_in(part: str, node: int) -> tuple[str, ...]:
    """The operations of a node from its part of a text, in the order of the nodes they read."""
    if len(part) < 2 or not part.startswith("|") or not part.endswith("|"):
        raise ValueError(
            f"cell text: node {node} must stand between bars, |op~0|, not {part!r:.80}"
        )
    found: dict[int, str] = {}
    for entry in part[1:-1].split("|"):
        name, sign, source = entry.strip().rpartition("~")
        if not sign or not re.fullmatch("[0-9]{1,3}", source):
            raise ValueError(
                f"cell text: node {node}: {entry!r:.80} must be an operation and the node that it "
                "reads, such as skip_connect~0"
            )
        number = int(source)
        if number in found:
            raise ValueError(f"cell text: node {node} reads node {number} twice")
        if number >= node:
            raise ValueError(
                f"cell text: node {node} cannot read node {number}, which is not before it"
            )
        found[number] = name
    missing = [number for number in range(node) if number not in found]
    if missing:
        raise ValueError(
            f"cell text: node {node} does not say by which operation it reads node {missing[0]}; "
            "an edge that is not there has the operation none"
        )
    return tuple(found[number] for number in range(node))


def _is_nodes(value: object) -> bool:
    return isinstance(value, tuple) and all(isinstance(node, tuple) for node in value)
