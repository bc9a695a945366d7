"""Readable source of a network, for a file that needs torch alone: cut out of our own modules."""

from __future__ import annotations

import ast
import inspect
import io
import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TypeAlias

import torch
from torch import nn

from gradnas import runs

LINE_LENGTH = 100  # of what is written

Import: TypeAlias = tuple[str, str]  # module, and the name taken from it or ""


@dataclass(frozen=True)
class NetworkSource:
    """What a family of architectures says in a source file.

    Attributes:
        architecture: assignments, with a comment above that explains them.
        code: the classes and functions that the network is made of.
        imports: of that code.
        build: the function `build() -> nn.Module`, which makes the network with fresh weights.
    """

    architecture: str
    code: str
    imports: frozenset[Import]
    build: str


# (architecture, space, in_channels, num_classes) -> the source; ValueError where there is none
SourceOf: TypeAlias = Callable[..., NetworkSource]


def write_source(network: nn.Module, path: Path, text: Callable[[str], str]) -> list[Path]:
    """Write a source file and beside it, under the same name with `.pt`, the weights.

    Args:
        network: whose weights they are.
        text: name of the file of weights -> the source.

    Returns:
        The files written.

    Raises:
        ValueError: a file of the weights' name that no export wrote.
    """
    weights = path.with_suffix(".pt")
    if weights.exists() and not path.exists():
        raise ValueError(
            f"{weights} exists and is not of an earlier export; "
            "choose another name, or move it away"
        )
    source = text(weights.name)
    buffer = io.BytesIO()
    torch.save(network.state_dict(), buffer)
    # The weights first: a source file is never there without them.
    runs.write_atomically(weights, buffer.getvalue())
    runs.write_atomically(path, source.encode())
    return [path, weights]


# ---- words of Python -----------------------------------------------------------------------------


def literal(value: str) -> str:
    """A text as a literal, in double quotes where that needs no escapes."""
    written = repr(value)
    if '"' in value or written.startswith('"'):
        return written
    # With neither quote in it, what repr escapes within single quotes is the same within double.
    inside = written.removeprefix("'").removesuffix("'")
    return f'"{inside}"'


def assignment(name: str, brackets: str, items: Iterable[str]) -> str:
    """`name = [a, b]`, or one item to a line where that is too long."""
    items = list(items)
    opening, closing = brackets
    comma = "," if brackets == "()" and len(items) == 1 else ""
    line = f"{name} = {opening}{', '.join(items)}{comma}{closing}"
    if len(line) <= LINE_LENGTH:
        return line
    lines = [f"    {item}," for item in items]
    return "\n".join([f"{name} = {opening}", *lines, closing])


def import_lines(imports: Iterable[Import]) -> str:
    """Import statements, sorted as ruff does: the standard library, a blank line, torch."""
    names: dict[str, list[str]] = {}
    for module, name in imports:
        names.setdefault(module, []).append(name)
    standard = []
    others = []
    for module in sorted(names):
        is_standard = module.partition(".")[0] in sys.stdlib_module_names
        (standard if is_standard else others).append(module)
    return "\n\n".join(_section(modules, names) for modules in (standard, others))


def _section(modules: list[str], names: dict[str, list[str]]) -> str:
    lines = [f"import {module}" for module in modules if "" in names[module]]
    for module in modules:
        chosen = [name for name in names[module] if name]
        if chosen:
            # Classes before functions
            chosen.sort(key=lambda name: (name[0].islower(), name))
            lines.append(f"from {module} import {', '.join(chosen)}")
    return "\n".join(lines)


# ---- cutting modules -----------------------------------------------------------------------------


def network_code(
    modules: Iterable[ModuleType], roots: set[str], used: set[str]
) -> tuple[str, frozenset[Import]]:
    """The source of what a network needs, and what it imports.

    Args:
        modules: where it stands, in the order in which it is to be written.
        roots: the names that the network is built with; all that they need comes with them.
        used: the entries of a table OPERATIONS that are needed.
    """
    read = _Read({}, {})
    for module in modules:
        _read_module(module, used, read)

    needed: set[str] = set()
    waiting = set(roots)
    while waiting:
        needed |= waiting
        mentioned: set[str] = set()
        for name in waiting:
            if name in read.definitions:
                mentioned |= read.definitions[name].names
        waiting = mentioned - needed

    code = ""
    follows_value = False
    for name, definition in read.definitions.items():
        if name not in needed:
            continue
        is_value = not definition.source.startswith(("def ", "class ", "@"))
        blank = "\n" if is_value and follows_value else "\n\n"
        code += blank + definition.source + "\n"
        follows_value = is_value
    imports = set()
    for name in needed:
        if name in read.imports and name not in read.definitions:
            imports.add(read.imports[name])
    assert not any(module.startswith("gradnas") for module, _ in imports), imports
    return code, frozenset(imports)


@dataclass(frozen=True)
class _Definition:
    """One top-level statement of a module: its source with the comment above it, and the names in
    it."""

    source: str
    names: frozenset[str]


@dataclass(frozen=True)
class _Read:
    """What modules define and import, by name."""

    definitions: dict[str, _Definition]
    imports: dict[str, Import]


def _read_module(module: ModuleType, used: set[str], read: _Read) -> None:
    """Add what a module defines, with OPERATIONS cut down to `used`, and what it imports."""
    source = inspect.getsource(module)
    lines = source.splitlines()
    for node in ast.parse(source).body:
        match node:
            case ast.Import(names=names):
                for alias in names:
                    read.imports[alias.name] = (alias.name, "")
            case ast.ImportFrom(module=str(origin), names=names):
                for alias in names:
                    read.imports[alias.name] = (origin, alias.name)
            case ast.AnnAssign(target=ast.Name(id="OPERATIONS"), value=ast.Dict() as table):
                first_line = lines[node.lineno - 1]
                definition = _cut_table(first_line, node.annotation, table, source, used)
                read.definitions["OPERATIONS"] = definition
            case (
                ast.FunctionDef(name=name)
                | ast.ClassDef(name=name)
                | ast.Assign(targets=[ast.Name(id=name)])
            ):
                text = "\n".join(lines[_first_line(node, lines) - 1 : node.end_lineno])
                read.definitions[name] = _Definition(text, _names(node))


def _first_line(node: ast.stmt, lines: list[str]) -> int:
    """The number of the line where a statement begins, with its decorators and the comment."""
    first = node.lineno
    for decorator in getattr(node, "decorator_list", []):
        first = min(first, decorator.lineno)
    while lines[first - 2].startswith("#"):
        first -= 1
    return first


def _cut_table(
    first_line: str, annotation: ast.expr, table: ast.Dict, source: str, used: set[str]
) -> _Definition:
    """A table of operations with the entries that are used."""
    entries = []
    values = []
    for key, value in zip(table.keys, table.values, strict=True):
        if key is None or ast.literal_eval(key) not in used:
            continue
        key_text = ast.get_source_segment(source, key)
        value_text = ast.get_source_segment(source, value)
        entries.append(f"    {key_text}: {value_text},")
        values.append(value)
    text = "\n".join([first_line, *entries, "}"])
    return _Definition(text, _names(annotation, *values))


def _names(*nodes: ast.AST) -> frozenset[str]:
    names = set()
    for node in nodes:
        for part in ast.walk(node):
            if isinstance(part, ast.Name):
                names.add(part.id)
    return frozenset(names)
