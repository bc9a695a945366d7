"""What the health of a search says, each in one sentence: what is wrong, and what to try."""

from __future__ import annotations

from gradnas.search.collapse import Collapse
from gradnas.search.sharpness import LAG, Growth
from gradnas.search.signals import Decided, Weightless
from gradnas.search.verdict_words import wrapped

TOO_SHORT = (
    "the search was too short for it: a measurement may take 3% of the steps since the last one "
    "(5% with guard 'stop'), and none was settled"
)

BLIND = (
    "the architecture that is decided lets nothing through: 'none' lies on every path from its "
    "input to its output, so that its network gives the same whatever it is given; take the "
    "decision of another epoch (metrics.jsonl), or search for more epochs"
)


def sharp(grown: Growth) -> str:
    """The largest eigenvalue has grown."""
    return (
        f"the validation loss becomes sharp in the alphas {_eigenvalues(grown)}, after which "
        "derived networks are known to get worse (RobustDARTS): take the decision after epoch "
        f"{grown.epochs}, or search with the guard on stop, for fewer epochs, or with more weight "
        "decay"
    )


def stopped(
    found: Growth | Collapse, after: int, epochs: int | None, rounds_to_come: bool = False
) -> str:
    """The guard has ended the search, or after its end has taken an earlier decision.

    Args:
        rounds_to_come: whether a selection was to measure operations in its last epochs.
    """
    of = "" if epochs is None else f" of {epochs}"
    if isinstance(found, Growth):
        why = f"the validation loss had become sharp in the alphas {_eigenvalues(found)}"
    elif after - found.epochs > LAG:
        why = f"the search had collapsed: {_since(found)}, and it stays so"
    else:
        why = f"the search may be collapsing: {_since(found)}"
    what = (
        "the guard takes an earlier decision than the last"
        if after == epochs
        else f"the guard ended the search after epoch {after}{of}"
    )
    by = ""
    if rounds_to_come:
        by = (
            ", by the alphas: the rounds of the selection were still to come, and with the guard "
            "on warn they are made"
        )
    return f"{what}, as {why}; the decision is that after epoch {found.epochs}{by}"


def collapsed(found: Collapse) -> str:
    """The decision has had hardly any weights for some epochs."""
    return (
        f"the search has collapsed: {_since(found)}, and it stays so; take the decision after "
        f"epoch {found.epochs} (metrics.jsonl), or search with the guard on stop, for fewer "
        "epochs, with smaller steps of the alphas or with beta decay"
    )


def _since(found: Collapse) -> str:
    return (
        f"since epoch {found.since} so much of what is decided has no weights as hardly any random "
        "architecture has"
    )


def without_weights(free: Weightless) -> str:
    """More of the decision has no weights than chance would give."""
    return (
        f"of {free.of} choices between operations with and without weights, {free.number} go to "
        "one without, which hardly any random architecture has: the search may be collapsing; take "
        "the decision of an "
        "earlier epoch (metrics.jsonl), or search for fewer epochs, with smaller steps of the "
        "alphas, or with a warm-up in which they wait"
    )


def undecided(decided: Decided, entropy: float, is_over: bool, alpha_every: int) -> str:
    """The alphas go here and there."""
    more = ""
    if alpha_every > 1:
        more = (
            f"let the alphas take more steps (they take one every {alpha_every}: alpha_every) or "
        )
    rows = "choice" if decided.of == 1 else "choices"
    nothing = "nothing was decided" if is_over else "nothing is decided so far"
    return (
        f"{nothing}: in {decided.of - decided.rows} of {decided.of} {rows} the steps of "
        "the alphas from epoch to epoch go here and there, and all operations are nearly equal "
        f"(entropy {entropy:.1%} of that of equal ones), so what is strongest may be chance; "
        f"search for more epochs (--epochs), or {more}with larger steps of the alphas (--alpha-lr)"
    )


def unsettled(agreement: float) -> str:
    """The decision still changes."""
    return (
        f"the decision still changes: {agreement:.0%} of it is as it was {LAG} epochs ago; search "
        "for more epochs, or compare several of its architectures by a short training"
    )


def lines(*troubles: str | None) -> list[str]:
    """What is said of it at the end of a search, for a terminal of 80 columns."""
    found = []
    for trouble in troubles:
        found += wrapped("" if trouble is None else f"health: {trouble}")
    return found


def _eigenvalues(grown: Growth) -> str:
    return (
        f"(largest eigenvalue of its Hessian {grown.now:.3g}, after epoch {grown.epochs} "
        f"{grown.before:.3g})"
    )
