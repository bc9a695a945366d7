"""Pictures of dense cells: every edge with its operation, as those of other cells are drawn."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from gradnas.architectures.dense_cell import DenseCell
from gradnas.pictures.canvas import plain, save_figure, svg_element
from gradnas.pictures.cell_plan import Edge, Graph
from gradnas.pictures.cells import figure_of_graphs

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def picture(cell: DenseCell, path: Path | str, *, title: str | None = None) -> Path:
    """The cell in an SVG, PNG or PDF file, by its suffix.

    The same cell gives the same bytes.

    Raises:
        ValueError: the suffix is another one, or the file cannot be written.
    """
    return save_figure(path, lambda: figure(cell, title=title))


def svg(cell: DenseCell, *, title: str | None = None) -> str:
    """The picture as an `<svg>` element for an HTML page; see `cells.svg`."""
    return svg_element(figure(cell, title=title), "Cell", f"{cell} {title}")


def figure(cell: DenseCell, *, title: str | None = None) -> Figure:
    """The cell with a legend."""
    return figure_of_graphs([("Cell", dense_graph(cell))], title)


def dense_graph(cell: DenseCell) -> Graph:
    """Of a dense cell; an edge with `none` has its row too, so that all of it can be read."""
    labels = tuple(str(node) for node in range(len(cell.nodes) + 1))
    edges = tuple(Edge(source, node, plain(name)) for source, node, name in cell.edges())
    last = len(cell.nodes)
    return Graph(labels, edges, (last,), ("$c_{k}$", f"node {last}"), inputs=1)
