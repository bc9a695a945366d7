"""What a notebook shows of an estimator that has found laws: the law, the front, and a picture."""

from __future__ import annotations

import base64
import html
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gradnas.laws.shown import ShownLaws

SHOWN = ["target", "complexity", "train_error", "valid_error", "chosen", "equation"]


def html_of(laws: ShownLaws) -> str:
    """A piece of HTML that needs nothing from elsewhere.

    Raises:
        AttributeError: nothing was fitted yet.
    """
    front = laws.pareto_
    columns = [column for column in SHOWN if column in front.columns]
    table = front[columns].to_html(index=False, float_format="{:.3g}".format, border=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "law.svg"
        laws.plot(path=file)
        encoded = base64.b64encode(file.read_bytes()).decode()
    law = html.escape(laws.text())
    picture = f'<img alt="data against law" src="data:image/svg+xml;base64,{encoded}">'
    return f"<pre>{law}</pre>\n{table}\n{picture}"
