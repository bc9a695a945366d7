"""`gradnas discover`: what it takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from tyro.conf import Positional, arg

from gradnas.cli.options import Command, Flag, Folder, Number, Share, Text, Whole


@dataclass(frozen=True, kw_only=True)
class DiscoverCommand(Command):
    """Find a short law in a table: print the Pareto front, write report, LaTeX and Python."""

    work = "gradnas.cli.discover:discover"

    what: Annotated[
        Positional[str | None], arg(metavar="DATA.csv|CONFIG.json", help_behavior_hint="")
    ] = None
    """CSV file with a header line, or the config.json of a discovery."""
    target: Annotated[tuple[str, ...] | None, arg(metavar="COLUMN ...", help_behavior_hint="")] = (
        None
    )
    """Column to explain, or several, each of which gets a law."""
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
    max_seconds: Number = None
    """Seconds by the clock after which nothing new is started; Ctrl-C does it at once."""
    plain_darts: Flag = None
    """DARTS as published for equations, for comparison."""
    loss: Annotated[Literal["squared", "absolute", "huber"] | None, arg(help_behavior_hint="")] = (
        None
    )
    """What is minimised; outliers hardly move the law with absolute and huber."""
    form: Text = None
    """A law with open constants to fit instead of a search, such as 'a*x1/(b + x1) + c'."""
    start: Annotated[tuple[str, ...] | None, arg(metavar="FORMULA ...", help_behavior_hint="")] = (
        None
    )
    """Formulas that the search begins with."""
    compare: Whole = None
    """Folds in which the law is compared with linear regression and gradient boosting."""
    out: Folder = None
    """Folder to make; by default the next free one in runs/."""
    seed: Whole = None
    """Of everything random."""
