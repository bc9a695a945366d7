"""Import cycles and layers of a package, for `code_shape.py`.

- Import cycle: a strongly connected component of two or more modules. Imports are taken as
  written, those within functions too. `from package import name` imports `package/__init__.py`,
  and what that file re-exports, it imports like any other module; that Python runs
  `package/__init__.py` before `package.module` adds no import. At run time: without what stands
  under `if TYPE_CHECKING`.
- Layers: of the longest contract of type `layers` in pyproject.toml; siblings joined by `|` are
  one layer.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import grimp
import networkx


def import_cycles(folder: Path, typing_imports: bool) -> list[list[str]]:
    """The modules of each import cycle within `folder`, which belongs to a package."""
    top = top_folder(folder)
    sys.path.insert(0, str(top.parent))
    graph = grimp.build_graph(
        top.name,
        exclude_type_checking_imports=not typing_imports,
        cache_dir=None,
    )
    sys.path.pop(0)
    inside = ".".join(folder.relative_to(top.parent).parts)
    modules = [m for m in graph.modules if m == inside or m.startswith(inside + ".")]
    imports = networkx.DiGraph()
    imports.add_nodes_from(modules)
    for module in modules:
        for imported in graph.find_modules_directly_imported_by(module):
            if imported in imports:
                imports.add_edge(module, imported)
    components = networkx.strongly_connected_components(imports)
    return sorted(sorted(component) for component in components if len(component) > 1)


def top_folder(folder: Path) -> Path:
    """The topmost package that `folder` is in."""
    while (folder.parent / "__init__.py").exists():
        folder = folder.parent
    return folder


def num_layers(folder: Path) -> int:
    """Layers of the longest import contract in pyproject.toml beside the package; 0 if none."""
    path = top_folder(folder).parent / "pyproject.toml"
    if not path.exists():
        return 0
    settings = tomllib.loads(path.read_text(encoding="utf-8"))
    contracts = settings.get("tool", {}).get("importlinter", {}).get("contracts", [])
    return max((len(contract.get("layers", [])) for contract in contracts), default=0)
