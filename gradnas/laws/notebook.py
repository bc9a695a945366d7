"""What a notebook shows of an estimator that has found laws: the law, the front, and a picture."""

from __future__ import annotations

import base64
import html
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas

SHOWN = ["target", "complexity", "train_error", "valid_error", "chosen", "equation"]


def html_of(text: str, front: pandas.DataFrame, plot: Callable[[Path], object]) -> str:
    """A piece of HTML that needs nothing from elsewhere.

    Args:
        text: the law in words.
        front: the Pareto front, as `pareto_` of an estimator.
        plot: writes the picture to a file.
    """
    columns = [column for column in SHOWN if column in front.columns]
    table = front[columns].to_html(index=False, float_format="{:.3g}".format, border=0)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "law.svg"
        plot(file)
        encoded = base64.b64encode(file.read_bytes()).decode()
    law = html.escape(text)
    picture = f'<img alt="data against law" src="data:image/svg+xml;base64,{encoded}">'
    return f"<pre>{law}</pre>\n{table}\n{picture}"
