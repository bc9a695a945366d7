"""Draws the layers of the import contract: docs/rooms.svg, and the table of docs/rooms.md.

    python docs/rooms.py            write both
    python docs/rooms.py --check    exit 1, and say which, if one of them is not what the code says

The order of the layers is that of `[tool.importlinter]` in pyproject.toml, which `lint-imports`
holds the code to; what a room is for is the first line of its own docstring. So neither can
differ from the code without a test that fails (tests/test_rooms.py).
"""

from __future__ import annotations

import ast
import html
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = ROOT / "docs" / "rooms.md"
PICTURE = ROOT / "docs" / "rooms.svg"
BEGIN = "<!-- the table of rooms: written by docs/rooms.py -->"
END = "<!-- end of the table -->"

# All lengths are pixels.
WIDTH = 760
MARGIN = 16
ROW = 40
BOX = 28
GAP = 8
LETTER = 7.3  # a letter of the monospaced font at 12 pixels
LABEL = 150  # the column on the left that says what a group of layers is
MOST = WIDTH - 2 * MARGIN - LABEL  # what a line of boxes may take


def layers() -> list[list[str]]:
    """The rooms of every layer, the highest first."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for contract in settings["tool"]["importlinter"]["contracts"]:
        if contract["type"] == "layers":
            return [rooms_of(layer) for layer in contract["layers"]]
    raise ValueError("pyproject.toml has no import contract of the type 'layers'")


def rooms_of(layer: str) -> list[str]:
    """`gradnas.families | gradnas.laws` -> `["families", "laws"]`."""
    names = layer.replace("|", " ").replace(":", " ").split()
    return [name.removeprefix("gradnas.") for name in names]


def purpose(room: str) -> str:
    """The first line of the docstring of a folder or of a file."""
    folder = ROOT / "gradnas" / room
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))
    if not text:
        raise ValueError(f"{path.relative_to(ROOT)} has no docstring: say what the room is for")
    first = text.split("\n\n")[0]
    return " ".join(first.split())


def table(rooms: list[list[str]]) -> str:
    """The rooms and what they are for, in the order of the layers."""
    lines = ["| layer | room | what it is for |", "|---|---|---|"]
    for number, layer in enumerate(rooms, start=1):
        for room in layer:
            is_folder = (ROOT / "gradnas" / room).is_dir()
            name = f"{room}/" if is_folder else f"{room}.py"
            lines.append(f"| {number} | `{name}` | {purpose(room)} |")
    return "\n".join(lines)


def lines_of_boxes(layer: list[str]) -> list[list[str]]:
    """The rooms of a layer in lines that are not wider than the picture."""
    lines: list[list[str]] = [[]]
    used = 0.0
    for room in layer:
        width = box_width(room) + GAP
        if lines[-1] and used + width > MOST:
            lines.append([])
            used = 0.0
        lines[-1].append(room)
        used += width
    return lines


def box_width(room: str) -> float:
    """As wide as its name."""
    return LETTER * len(room) + 20


def picture(rooms: list[list[str]]) -> str:
    """The layers as rows of boxes; a room may import what lies below its row."""
    parts: list[str] = []
    y = float(MARGIN)
    for number, layer in enumerate(rooms, start=1):
        lines = lines_of_boxes(layer)
        height = ROW * len(lines)
        shade = "#f1f3f5" if number % 2 else "#ffffff"
        parts.append(f'<rect x="0" y="{y:g}" width="{WIDTH}" height="{height}" fill="{shade}"/>')
        parts.append(f'<text x="{MARGIN}" y="{y + 25:g}" fill="#5c6670">layer {number}</text>')
        for line in lines:
            x = float(MARGIN + LABEL)
            for room in line:
                width = box_width(room)
                top = y + (ROW - BOX) / 2
                parts.append(
                    f'<rect x="{x:g}" y="{top:g}" width="{width:g}" height="{BOX}" rx="4" '
                    'fill="#d4e6f7" stroke="#3f7fbf"/>'
                )
                middle = x + width / 2
                parts.append(
                    f'<text x="{middle:g}" y="{top + 18:g}" text-anchor="middle" fill="#1d2730">'
                    f"{html.escape(room)}</text>"
                )
                x += width + GAP
            y += ROW
    # An arrow down the left side says which way imports go.
    x = MARGIN + LABEL - 30
    parts.append(
        f'<path d="M {x} {MARGIN + 14} V {y - 20:g} M {x - 5} {y - 28:g} L {x} {y - 20:g} '
        f'L {x + 5} {y - 28:g}" stroke="#5c6670" fill="none" stroke-width="1.5"/>'
    )
    height = y + MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height:g}" '
        f'viewBox="0 0 {WIDTH} {height:g}" role="img" '
        'font-family="ui-monospace, Menlo, Consolas, monospace" font-size="12">\n'
        "<title>The layers of gradnas: a room imports only what lies below it</title>\n"
        f'<rect width="{WIDTH}" height="{height:g}" fill="#ffffff"/>\n'
        + "\n".join(parts)
        + "\n</svg>\n"
    )


def page(rooms: list[list[str]], before: str) -> str:
    """The page with its table replaced."""
    head, rest = before.split(BEGIN)
    tail = rest.split(END)[1]
    return f"{head}{BEGIN}\n{table(rooms)}\n{END}{tail}"


def main() -> int:
    """Write the picture and the page, or with `--check` compare them."""
    rooms = layers()
    wanted = {PICTURE: picture(rooms), PAGE: page(rooms, PAGE.read_text(encoding="utf-8"))}
    differs = []
    for path, text in wanted.items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        differs.append(path)
        if "--check" not in sys.argv:
            path.write_text(text, encoding="utf-8")
    for path in differs:
        print(path.relative_to(ROOT))
    return 1 if differs and "--check" in sys.argv else 0


if __name__ == "__main__":
    sys.exit(main())
