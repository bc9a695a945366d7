"""What is drawn of a cell, and in which order its rows and lanes stand.

States stand in columns by their longest path from the inputs, and every edge owns one row. Between
two columns run vertical lanes, one per source state. A local search over the lanes and the order of
a node's rows keeps the crossings few.

Levels are points (1/72 inch), for labels of one line; y grows downwards.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TypeVar

from gradnas.architectures.genotype import CellGenotype, edges_by_node
from gradnas.pictures.canvas import check_installed

T = TypeVar("T")

PITCH = 21.0  # between the rows of one node
BAND_GAP = 9.0  # more between the rows of two nodes


@dataclass(frozen=True)
class Edge:
    """An edge from state to state."""

    source: int
    target: int
    operation: str | None  # None: the arrows from x_t and h_{t-1} to s_0, which have no choice


@dataclass(frozen=True)
class Graph:
    """A cell of any kind. Its inputs are the first states.

    Attributes:
        labels: of the states.
        edges: from top to bottom; the edges of one target are neighbours.
        concat: the states that make the output.
        output: the output's label, and how it comes about.
        inputs: how many there are, two or one.
    """

    labels: tuple[str, ...]
    edges: tuple[Edge, ...]
    concat: tuple[int, ...]
    output: tuple[str, str]
    inputs: int = 2

    @property
    def columns(self) -> tuple[int, ...]:
        """Per state, the number of edges on its longest path from an input."""
        check_installed()
        import networkx as nx

        graph = nx.DiGraph()
        graph.add_nodes_from(range(len(self.labels)))
        graph.add_edges_from((edge.source, edge.target) for edge in self.edges)
        # A generation holds the states whose predecessors are all in earlier ones, and at least one
        # in the generation before: its number is the length of the longest path.
        columns = [0] * len(self.labels)
        for column, states in enumerate(nx.topological_generations(graph)):
            for state in states:
                columns[state] = column
        return tuple(columns)


def conv_graph(cell: CellGenotype) -> Graph:
    """Of a convolutional cell: states 0 and 1 are the outputs of the two cells before."""
    labels = ["$c_{k-2}$", "$c_{k-1}$"]
    nodes = edges_by_node(cell)
    labels += [str(node) for node in range(len(nodes))]
    edges = []
    for node, incoming in enumerate(nodes):
        for operation, source in incoming:
            edges.append(Edge(source, node + 2, operation))
    return Graph(tuple(labels), tuple(edges), cell.concat, ("$c_{k}$", "concat"))


def recurrent_graph(cell: CellGenotype) -> Graph:
    """Of a recurrent cell: its inputs x_t and h_{t-1}, then the states.

    State k + 2 of the graph is s_k, of which s_0 has no choice.
    """
    check_installed()
    import networkx as nx

    labels = ["$x_{t}$", "$h_{t-1}$"]
    labels += [f"$s_{{{k}}}$" for k in range(len(cell.edges) + 1)]
    incoming = {}
    # The i-th edge leads to s_{i+1}, which is state i + 3; its source s_k is state k + 2.
    for i, (activation, source) in enumerate(cell.edges):
        incoming[i + 3] = Edge(source + 2, i + 3, activation)
    # Every state has one predecessor: a tree, whose lines do not cross in preorder.
    tree = nx.DiGraph((edge.source, edge.target) for edge in incoming.values())
    edges = [Edge(0, 2, None), Edge(1, 2, None)]
    edges += [incoming[state] for state in nx.dfs_preorder_nodes(tree, 2) if state != 2]
    concat = tuple(node + 2 for node in cell.concat)
    return Graph(tuple(labels), tuple(edges), concat, ("$h_{t}$", "mean"))


@dataclass(frozen=True)
class Plan:
    """The discrete part of a layout.

    Attributes:
        columns: of the states.
        rows: the edges from top to bottom.
        lanes: per column, the sources of the lanes to the right of it, from left to right.
    """

    graph: Graph
    columns: tuple[int, ...]
    rows: tuple[Edge, ...]
    lanes: tuple[tuple[int, ...], ...]

    def row_levels(self) -> list[float]:
        """y of every row: neighbours at a pitch, with a gap between the rows of two targets."""
        levels = [0.0]
        for above, edge in zip(self.rows, self.rows[1:], strict=False):
            gap = BAND_GAP if above.target != edge.target else 0.0
            levels.append(levels[-1] + (PITCH + gap))
        return levels

    def state_levels(self) -> list[float]:
        """y of every state: that of its rows' middle, and for an input near the rows that it feeds.

        An input's line must not lie in the row of another source, so it stands in one of its own
        rows, or at the height of a node, or above or below everything. The first input stands above
        the second unless that is far.
        """
        levels_of_rows = self.row_levels()
        entering: dict[int, list[float]] = {}
        num_inputs = self.graph.inputs
        leaving: dict[int, list[float]] = {state: [] for state in range(num_inputs)}
        for edge, y in zip(self.rows, levels_of_rows, strict=True):
            entering.setdefault(edge.target, []).append(y)
            leaving.setdefault(edge.source, []).append(y)
        states = range(num_inputs, len(self.graph.labels))
        nodes = [_mean(entering[state]) for state in states]

        top = levels_of_rows[0] - PITCH
        bottom = levels_of_rows[-1] + PITCH
        first_middle = _mean(leaving[0]) if leaving[0] else top
        if num_inputs == 1:
            _, only = min((abs(y - first_middle), y) for y in {*leaving[0], *nodes, top, bottom})
            return [only, *nodes]
        second_middle = _mean(leaving[1]) if leaving[1] else bottom
        pairs = []
        for y0 in {*leaving[0], *nodes, top, bottom}:
            for y1 in {*leaving[1], *nodes, top, bottom}:
                if abs(y1 - y0) < PITCH:  # their boxes would touch
                    continue
                reversed_cost = 3 * PITCH if y1 < y0 else 0.0
                cost = abs(y0 - first_middle) + abs(y1 - second_middle) + reversed_cost
                pairs.append((cost, y0, y1))
        # Of equal costs the smaller levels, so that the order of the sets does not matter.
        _, first, second = min(pairs)
        return [first, second, *nodes]

    def crossings(self) -> int:
        """Twice the crossings among edges, plus those of an edge and a line to the output."""
        across, lanes = self._lines()
        total = 0
        for line in across:
            for lane in lanes:
                # Lines of one source belong together: where they meet, nothing crosses.
                if (
                    line.source != lane.source
                    and line.start < lane.x < line.stop
                    and lane.top < line.y < lane.bottom
                ):
                    total += line.weight
        return total

    def _lines(self) -> tuple[list[_Across], list[_Lane]]:
        """All horizontal lines and all lanes, x in columns."""
        levels = self.state_levels()
        levels_of_rows = self.row_levels()
        # Lines to the output go on to the right of everything.
        across = [_Across(self.columns[i], 1e9, levels[i], i, 1) for i in self.graph.concat]
        lanes = []
        for column, sources in enumerate(self.lanes):
            for i, source in enumerate(sources):
                # Between its column and the next one; only the order of the lanes matters here.
                x = column + (i + 1) / (len(sources) + 2)
                ys = [levels[source]]
                across.append(_Across(column, x, levels[source], source, 2))
                for edge, y in zip(self.rows, levels_of_rows, strict=True):
                    if edge.source == source:
                        across.append(_Across(x, self.columns[edge.target], y, source, 2))
                        ys.append(y)
                lanes.append(_Lane(x, min(ys), max(ys), source))
        return across, lanes

    def neighbours(self) -> Iterator[Plan]:
        """Plans with two rows of one target, or two lanes of one column, exchanged."""
        for i in range(len(self.rows) - 1):
            if self.rows[i].target == self.rows[i + 1].target:
                yield replace(self, rows=_exchanged(self.rows, i))
        for column, sources in enumerate(self.lanes):
            for i in range(len(sources) - 1):
                lanes = list(self.lanes)
                lanes[column] = _exchanged(sources, i)
                yield replace(self, lanes=tuple(lanes))


@dataclass(frozen=True, slots=True)
class _Across:
    """A horizontal line of a source; a crossing with it counts `weight`."""

    start: float
    stop: float
    y: float
    source: int
    weight: int


@dataclass(frozen=True, slots=True)
class _Lane:
    """A vertical line of a source."""

    x: float
    top: float
    bottom: float
    source: int


def plan_of(graph: Graph) -> Plan:
    """The plan with the fewest crossings that exchanges of neighbours lead to."""
    columns = graph.columns
    sources = sorted({edge.source for edge in graph.edges})
    lanes = []
    for column in range(max(columns) + 1):
        lanes.append(tuple(source for source in sources if columns[source] == column))
    plan = Plan(graph, columns, graph.edges, tuple(lanes))
    fewest = plan.crossings()
    while True:  # ends, since the crossings decrease
        best = plan
        for neighbour in plan.neighbours():
            crossings = neighbour.crossings()
            if crossings < fewest:
                fewest = crossings
                best = neighbour
        if best is plan:
            return plan
        plan = best


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)


def _exchanged(items: tuple[T, ...], i: int) -> tuple[T, ...]:
    """With the i-th and the next item in each other's place."""
    return (*items[:i], items[i + 1], items[i], *items[i + 2 :])
