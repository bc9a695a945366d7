"""Results as pieces of HTML for a notebook: pictures inline, tables, sentences."""

from __future__ import annotations

import base64
import html
import tempfile
from pathlib import Path

from gradnas.architectures.base import Architecture
from gradnas.families import family_of
from gradnas.programs.your_task import TaskRun
from gradnas.search.result import SearchResult
from gradnas.search.verdict import Verdict


def html_of(result: object) -> str:
    """What a notebook shows of a result that carries `gradnas.notebook.Shown`.

    Raises:
        TypeError: it is of another kind.
    """
    if isinstance(result, SearchResult):
        return _result(result)
    if isinstance(result, TaskRun):
        return _run(result)
    if isinstance(result, Verdict):
        return _verdict(result)
    if isinstance(result, Architecture):
        return _architecture(result)
    raise TypeError(f"a notebook shows results of gradnas, not a {type(result).__name__}")


def _run(run: TaskRun) -> str:
    numbers = []
    for name, value in run.results.items():
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            numbers.append((name.replace("_", " "), f"{value:.4g}"))
    folder = f"<p>run folder: <code>{_text(run.path)}</code></p>"
    if run.result is not None:
        # The result is made anew from the checkpoint; what was measured at the end lies beside it.
        written = run.results.get("verdict")
        verdict = Verdict.from_json(written) if isinstance(written, dict) else None
        return _joined(_result(run.result), _verdict(verdict), folder)
    return _joined(_table(numbers), folder)


def _result(result: SearchResult) -> str:
    return _joined(_architecture(result.decision, result), _verdict(result.verdict))


def _architecture(architecture: Architecture, result: SearchResult | None = None) -> str:
    """The picture of its family, as in a report."""
    space = None if result is None else result.supernet
    with tempfile.TemporaryDirectory() as folder:
        file = family_of(architecture).picture(
            architecture, Path(folder) / "picture.svg", space=space
        )
        encoded = base64.b64encode(file.read_bytes()).decode()
    # An image of its own: ids and styles of several SVG elements in one page would meet.
    words = _text(architecture.public)
    source = f"data:image/svg+xml;base64,{encoded}"
    return (
        f'<figure style="margin:0"><img alt="{_text(architecture.noun)}: {words}" src="{source}">'
        f"<figcaption>{words}</figcaption></figure>"
    )


def _verdict(verdict: Verdict | None) -> str:
    return "" if verdict is None else f"<pre>{_text(verdict)}</pre>"


def _table(rows: list[tuple[str, str]]) -> str:
    if not rows:
        return ""
    lines = [f"<tr><th>{_text(name)}</th><td>{_text(value)}</td></tr>" for name, value in rows]
    return f"<table>{''.join(lines)}</table>"


def _joined(*parts: str) -> str:
    return "\n".join(part for part in parts if part)


def _text(value: object) -> str:
    return html.escape(str(value))
