"""What the documentation site has beside the pages of this folder; mkdocs calls it (mkdocs.yml).

The reference is written from the list of public names, a page for each; the gallery from the files
of `examples/`, with what they printed and drew when `docs/gallery.py` ran them; the measurements
are those of `benchmarks/`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files
from mkdocs.structure.nav import Navigation, Section
from mkdocs.structure.pages import Page

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
RAN = ROOT / "build" / "gallery"

# Files of the repository that are pages of the site under another name
MOVED = {
    "../benchmarks/RESULTS.md": "measurements.md",
    "../benchmarks/fused_notes.md": "fused-notes.md",
}
SUBJECTS = {
    "modules of your own": ("choice", "modules", "spaces.replace", "spaces.derive", "tasks"),
    "searches": ("search", "programs", "optimizers", "runs"),
    "spaces and what is found": ("spaces", "architectures"),
    "relaxations": ("relaxations",),
    "architecture gradients": ("gradients",),
    "objectives": ("objectives",),
    "latency and costs": ("latency",),
    "laws": ("laws",),
}
OTHER = "more"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made."""
    pages = {
        "measurements.md": (ROOT / "benchmarks" / "RESULTS.md").read_text(encoding="utf-8"),
        "fused-notes.md": (ROOT / "benchmarks" / "fused_notes.md").read_text(encoding="utf-8"),
    }
    pages.update(reference())
    pages.update(gallery())
    for address, text in pages.items():
        files.append(File.generated(config, address, content=text))
    for picture in sorted(RAN.glob("*/*.svg")):
        address = f"gallery/{picture.parent.name}-{picture.name}"
        files.append(File.generated(config, address, abs_src_path=str(picture)))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links into the repository lead to the pages that hold the same."""
    del page, config, files
    for file, address in MOVED.items():
        markdown = markdown.replace(f"]({file}", f"]({address}")
    # Other files of the repository are named, without a link.
    return re.sub(r"\[([^\]]*)\]\(\.\./[^)]*\)", r"\1", markdown)


# ---- reference -----------------------------------------------------------------------------------


def public_names() -> dict[str, str]:
    """Name -> the module that the package takes it from, without importing anything."""
    tree = ast.parse((ROOT / "gradnas" / "__init__.py").read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULES":
            names: dict[str, str] = ast.literal_eval(node.value)
            return names
    raise PluginError("gradnas/__init__.py has no list of public names (_MODULES)")


def subject_of(module: str) -> str:
    """The heading that a name stands under: the longest room that its module begins with."""
    best, length = OTHER, 0
    for subject, rooms in SUBJECTS.items():
        for room in rooms:
            is_inside = f"{module}.".startswith(f"gradnas.{room}.")
            if is_inside and len(room) > length:
                best, length = subject, len(room)
    return best


def first_sentence(name: str, module: str) -> str:
    """Of a public name's docstring, as its source has it.

    Raises:
        PluginError: it has none.
    """
    for file in _sources(module):
        body = ast.parse(file.read_text(encoding="utf-8")).body
        for node, after in zip(body, [*body[1:], None], strict=True):
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
                return _opening(ast.get_docstring(node) or "")
            is_meant = isinstance(node, ast.Assign | ast.AnnAssign) and _assigned(node) == name
            # Of a constant the text that stands below it
            if is_meant and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                return _opening(str(after.value.value))
        for node in body:
            passed_on = isinstance(node, ast.ImportFrom) and name in {a.name for a in node.names}
            if passed_on and node.module != module:
                return first_sentence(name, str(node.module))
    raise PluginError(f"{module}.{name} has no docstring")


def _opening(doc: str) -> str:
    return doc.split("\n\n")[0].replace("\n", " ")


def _assigned(node: ast.Assign | ast.AnnAssign) -> str:
    target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
    return ast.unparse(target)


def _sources(module: str) -> Iterator[Path]:
    path = ROOT / Path(*module.split("."))
    if path.is_dir():  # a room whose `__init__` passes names on
        yield path / "__init__.py"
    else:
        yield path.with_suffix(".py")


def reference() -> dict[str, str]:
    """Address -> text: a page for each public name, and one that lists them."""
    pages = {}
    listed: dict[str, list[str]] = {subject: [] for subject in (*SUBJECTS, OTHER)}
    for name, module in public_names().items():
        pages[f"reference/{name}.md"] = f"---\ntitle: {name}\n---\n\n::: {module}.{name}\n"
        row = f"| [{name}]({name}.md) | {first_sentence(name, module)} |"
        listed[subject_of(module)].append(row)
    index = ["# Reference", "", "Every public name: `import gradnas`, then `gradnas.NAME`.", ""]
    for subject, rows in listed.items():
        if rows:
            index += [f"## {subject.capitalize()}", "", "| name | |", "|---|---|", *rows, ""]
    pages["reference/index.md"] = "\n".join(index)
    return pages


# ---- gallery -------------------------------------------------------------------------------------


def gallery() -> dict[str, str]:
    """Address -> text: a page for each file of `examples/` that was run, and one that lists them.

    Raises:
        PluginError: nothing was run yet.
    """
    pages = {}
    rows = []
    for folder in sorted(RAN.iterdir()) if RAN.is_dir() else []:
        source = EXAMPLES / f"{folder.name}.py"
        printed = folder / "output.txt"
        if not source.exists() or not printed.exists():
            continue
        text = source.read_text(encoding="utf-8")
        doc = ast.get_docstring(ast.parse(text)) or ""
        title = doc.split("\n", 1)[0].rstrip(".")
        pages[f"gallery/{folder.name}.md"] = _page(title, folder, text, printed.read_text("utf-8"))
        rows.append(f"| [{folder.name}.py]({folder.name}.md) | {title} |")
    if not rows:
        raise PluginError("no example was run yet: python docs/gallery.py (make docs does it)")
    index = [
        "# Gallery",
        "",
        "Programs of at most a hundred lines, on data that are embedded or made on the spot. Each",
        "page is its file, with what it printed and drew when this site was built.",
        "",
        "| file | what it searches |",
        "|---|---|",
        *rows,
        "",
    ]
    pages["gallery/index.md"] = "\n".join(index)
    return pages


def _page(title: str, folder: Path, source: str, printed: str) -> str:
    parts = [f"# {title}", "", f"`examples/{folder.name}.py`", "", _fenced("python", source), ""]
    parts += ["What it printed:", "", _fenced("text", printed), ""]
    for picture in sorted(folder.glob("*.svg")):
        parts.append(f"![what was decided]({folder.name}-{picture.name})")
    return "\n".join(parts) + "\n"


def _fenced(language: str, text: str) -> str:
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text.rstrip()}\n{fence}"


def on_nav(nav: Navigation, config: MkDocsConfig, files: Files) -> Navigation:
    """The made pages stand below the page that lists them, in the order of their addresses."""
    del config
    for item in list(nav.items):
        place = getattr(item, "file", None)
        if place is None or place.src_uri not in ("gallery/index.md", "reference/index.md"):
            continue
        room = place.src_uri.split("/")[0]
        below = []
        for file in files.documentation_pages():
            if file.src_uri.startswith(f"{room}/") and file.page not in (None, item):
                below.append(file.page)
        section = Section(room.capitalize(), [item, *below])
        nav.items[nav.items.index(item)] = section
        for child in section.children:
            child.parent = section
    return nav
