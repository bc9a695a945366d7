"""`gradnas discover`."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradnas import runs
from gradnas.cli.begin import free_folder, typed
from gradnas.cli.options import Flag, Folder, Share, Text, Whole, given
from gradnas.config import from_json


@dataclass(frozen=True, kw_only=True)
class DiscoverCommand:
    """Find a short law in a table: print the Pareto front, write report, LaTeX and Python."""

    what: Annotated[
        Positional[str | None], arg(metavar="DATA.csv|CONFIG.json", help_behavior_hint="")
    ] = None
    """CSV file with a header line, or the config.json of a discovery."""
    target: Text = None
    """Column to explain."""
    features: Annotated[
        tuple[str, ...] | None, arg(metavar="COLUMN ...", help_behavior_hint="")
    ] = None
    """Columns to explain it with; by default all others."""
    weights: Text = None
    """Column of sample weights."""
    example: Text = None
    """Generated table instead of a file: weber-fechner, stevens, michaelis-menten, learning,
    damped-oscillation, gravitation, psychometric or decay-counts."""
    rows: Whole = None
    """Rows of the example."""
    noise: Share = None
    """Noise of the example, a share of the target's standard deviation."""
    output: Annotated[
        Literal["real", "probability", "counts", "class"] | None, arg(help_behavior_hint="")
    ] = None
    """What the target is."""
    primitives: Annotated[
        tuple[str, ...] | None, arg(metavar="WORD ...", help_behavior_hint="")
    ] = None
    """Functions that the law may use, such as linear linear_exp linear_ln."""
    nodes: Whole = None
    """Largest number of intermediate nodes."""
    effort: Share = None
    """Multiplies the budget."""
    max_complexity: Whole = None
    """Choose among laws of at most this complexity (constants + operations)."""
    plain_darts: Flag = None
    """DARTS as published for equations, for comparison."""
    out: Folder = None
    """Folder to make; by default the next free one in runs/."""
    seed: Whole = None
    """Of everything random."""

    def run(self) -> None:
        # Here, because sympy and pandas take a second to import.
        from gradnas.programs import discovering

        settings = given(
            self,
            "target",
            "features",
            "weights",
            "example",
            "rows",
            "noise",
            "output",
            "primitives",
            "nodes",
            "effort",
            "max_complexity",
            "plain_darts",
            "seed",
        )
        if self.what is not None and self.what.endswith(".json"):
            _, description = typed(Path(self.what), discovering.DiscoverConfig)
            config = from_json(discovering.DiscoverConfig, description, self.what)
            config = replace(config, **settings)
        else:
            config = discovering.DiscoverConfig(data=self.what, **settings)
        out = self.out
        if out is None:
            stem = config.example or Path(str(config.data)).stem
            out = free_folder(f"discover-{stem}")
        discovering.check_free(out)
        config, found, seconds = discovering.discover(config)
        print("\n".join(discovering.front_lines(found)))
        discovering.save_discovery(config, found, seconds, out)
        files = ", ".join([runs.REPORT, discovering.LAW_TEX, discovering.LAW_PY, runs.RESULTS])
        print(f"{seconds:.1f} s; {files} in {out}")
