"""Runs the examples as their own first lines say, and keeps what they print and draw.

    python docs/gallery.py [NAME ...] [--out build/gallery]

The documentation site shows it (docs/pages.py), the tests look at it. The commands of an example
are the indented lines of its docstring that begin with `gradnas` or `python`; the run folder of a
search goes into a temporary one.
"""

from __future__ import annotations

import argparse
import ast
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
NOT_SHOWN = {"plain_module"}  # what another one is compared with
GRADNAS = [sys.executable, "-m", "gradnas"]
# Of progress, each line of which is like the one before
PROGRESS = re.compile(r"^\S.*: epoch \d+/\d+  .*\n", re.MULTILINE)


def names() -> list[str]:
    """The examples that are shown."""
    return sorted(file.stem for file in EXAMPLES.glob("*.py") if file.stem not in NOT_SHOWN)


def commands(name: str) -> list[list[str]]:
    """What the docstring of an example says how it is run."""
    doc = ast.get_docstring(ast.parse((EXAMPLES / f"{name}.py").read_text(encoding="utf-8"))) or ""
    found = re.findall(r"^    ((?:gradnas|python) .*)$", doc, re.MULTILINE)
    return [line.split() for line in found]


def run(name: str, out: Path) -> str:
    """Run an example; what it printed and drew is then in `out/name`.

    Returns:
        What it printed.

    Raises:
        RuntimeError: a command failed; with its output.
    """
    folder = out / name
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    printed = []
    environment = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    with tempfile.TemporaryDirectory() as place:
        (Path(place) / "examples").symlink_to(EXAMPLES)
        for words in commands(name):
            program = [sys.executable] if words[0] == "python" else GRADNAS
            done = subprocess.run(
                [*program, *words[1:]], cwd=place, env=environment, text=True, capture_output=True
            )
            if done.returncode != 0:
                raise RuntimeError(f"{' '.join(words)} failed:\n{done.stdout}{done.stderr}")
            said = PROGRESS.sub("", done.stderr) + done.stdout
            printed.append(f"$ {' '.join(words)}\n{said}")
        for picture in sorted(Path(place).glob("runs/*/cells.svg")):
            shutil.copy(picture, folder / "choices.svg")
    text = "\n".join(printed)
    (folder / "output.txt").write_text(text, encoding="utf-8")
    return text


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", help="examples; all of them by default")
    parser.add_argument("--out", type=Path, default=ROOT / "build" / "gallery")
    arguments = parser.parse_args()
    for name in arguments.names or names():
        print(f"== {name}", flush=True)
        print(run(name, arguments.out), flush=True)


if __name__ == "__main__":
    main()
