"""What `code_shape.py` counts in one file: lines, tokens, assignments, functions, classes.

- Code line: a physical line with at least one token of code. Comments, blank lines and docstrings
  are none; a text over three lines that is no docstring is three.
- Token: as the module `tokenize` cuts, without comments, docstrings, line ends and indentation.
  From Python 3.12 on it cuts an f-string into its parts: compare figures of one version.
- Packed assignment: `a, b = x, y`, two or more targets beside as many values, none of them
  starred. An exchange (`a, b = b, a`) is none, since it cannot be said otherwise; nor is
  `a, b = pair`, which names the parts of one value.
- Comprehension: of a list, a set, a dictionary, or a generator expression. Nested: another one is
  within it.
- Comment: a line with a comment, unless it speaks to a tool (`type: ignore`, `noqa`, ...).
- Function: from `def` to its last line with all that is in it; methods, and functions within
  functions, count too.
- Methods of a class: the different names that a `def` in its body defines.
"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from dataclasses import dataclass, field

TO_A_TOOL = re.compile(r"#\s*(type: *ignore|noqa|pyrefly:|mypy:|pyright:|ruff:|fmt:|pragma:|!)")
LAYOUT = {
    tokenize.ENCODING,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENDMARKER,
}
COMPREHENSIONS = (ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


@dataclass
class FileShape:
    """What was counted in one file. Places are texts `file:line: what`."""

    name: str
    num_lines: int = 0
    num_code_lines: int = 0
    num_tokens: int = 0
    num_comments: int = 0
    num_comprehensions: int = 0
    packed: list[str] = field(default_factory=list)
    nested: list[str] = field(default_factory=list)
    questions: list[str] = field(default_factory=list)
    functions: list[tuple[int, str]] = field(default_factory=list)
    """Lines of each function, and its place."""
    classes: list[tuple[int, str]] = field(default_factory=list)
    """Methods of each class, and its place."""

    @property
    def tokens_per_line(self) -> float:
        """Tokens on a code line."""
        return self.num_tokens / max(1, self.num_code_lines)

    @property
    def hardness(self) -> float:
        """Tokens on a code line, plus packed assignments per 100 code lines: good for a rank."""
        return self.tokens_per_line + 100 * len(self.packed) / max(1, self.num_code_lines)


def docstring_lines(tree: ast.AST) -> set[int]:
    """The lines of texts that stand alone as a statement: docstrings, also those of fields."""
    lines = set()
    for node in ast.walk(tree):
        if not isinstance(node, ast.Expr) or not isinstance(node.value, ast.Constant):
            continue
        if isinstance(node.value.value, str):
            assert node.end_lineno is not None
            lines.update(range(node.lineno, node.end_lineno + 1))
    return lines


def count_tokens(shape: FileShape, text: str, docstrings: set[int]) -> None:
    """Count the code lines, tokens and comments of `text`."""
    code_lines = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        first_line = token.start[0]
        last_line = token.end[0]
        if token.type == tokenize.COMMENT:
            if not TO_A_TOOL.match(token.string):
                shape.num_comments += 1
        elif token.type not in LAYOUT and first_line not in docstrings:
            shape.num_tokens += 1
            code_lines.update(range(first_line, last_line + 1))
    shape.num_code_lines = len(code_lines)


def count_syntax(shape: FileShape, tree: ast.AST) -> None:
    """Count what the syntax tree shows."""
    nodes = [node for node in ast.walk(tree) if isinstance(node, ast.stmt | ast.expr)]
    for node in sorted(nodes, key=lambda node: node.lineno):
        if isinstance(node, ast.Assign) and is_packed(node):
            shape.packed.append(f"{shape.name}:{node.lineno}: {short(node)}")
        elif isinstance(node, COMPREHENSIONS):
            shape.num_comprehensions += 1
            inner = [part for part in ast.walk(node) if isinstance(part, COMPREHENSIONS)]
            if len(inner) > 1:  # the first is the node itself
                shape.nested.append(f"{shape.name}:{node.lineno}: {short(node)}")
        elif isinstance(node, FUNCTIONS):
            assert node.end_lineno is not None
            num_lines = node.end_lineno - node.lineno + 1
            shape.functions.append((num_lines, f"{shape.name}:{node.lineno}: {node.name}"))
        elif isinstance(node, ast.ClassDef):
            methods = {part.name for part in node.body if isinstance(part, FUNCTIONS)}
            shape.classes.append((len(methods), f"{shape.name}:{node.lineno}: {node.name}"))


def is_packed(node: ast.Assign) -> bool:
    """Whether this assigns two or more values to as many targets, and is no exchange."""
    values = node.value
    if not isinstance(values, ast.Tuple):
        return False
    for targets in node.targets:
        if not isinstance(targets, ast.Tuple) or len(targets.elts) < 2:
            continue
        if any(isinstance(part, ast.Starred) for part in (*targets.elts, *values.elts)):
            continue
        target_texts = sorted(ast.unparse(target) for target in targets.elts)
        value_texts = sorted(ast.unparse(value) for value in values.elts)
        if len(target_texts) == len(value_texts) and target_texts != value_texts:
            return True
    return False


def short(node: ast.AST) -> str:
    """The source of `node`, cut to a line."""
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 70 else text[:67] + "..."
