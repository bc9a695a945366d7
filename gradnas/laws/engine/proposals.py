"""Proposals for laws: formulas of trained supernets, and random ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from gradnas.laws.engine.graph import (
    EquationGraph,
    random_formulas,
)
from gradnas.laws.engine.problem import Problem
from gradnas.laws.engine.supernets import (
    SupernetSearch,
    search,
)
from gradnas.laws.formula import (
    Edge,
    Formula,
    Node,
)
from gradnas.randomness import generator_for

RANDOM = 3  # stream of random numbers
FEWEST_RESTARTS = 8


@dataclass
class Proposals:
    """Formulas over all features, not yet fitted, with sentences and counts for the user."""

    formulas: list[Formula] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)


def propose(problem: Problem, share: float) -> Proposals:
    """Train supernets and derive a formula from each; random formulas beside them.

    Args:
        share: of the work that is allowed; where the supernets would take more, they are fewer.
    """
    settings = problem.settings
    restarts = settings.restarts
    if restarts > 1:
        restarts = round(restarts * settings.effort)
    num_random = round(settings.random_share * restarts)
    space = EquationGraph(
        len(problem.features), settings.nodes, settings.primitives, settings.kinds
    )
    proposals = Proposals()
    if settings.proposals == "random":
        num_random += restarts
    elif restarts:
        _train(problem, space, restarts, share, proposals)
    generator = generator_for(problem.seed, RANDOM)
    proposals.formulas += random_formulas(space, num_random, generator)
    proposals.counts["random graphs"] = num_random
    proposals.formulas = [_widened(formula, problem) for formula in proposals.formulas]
    return proposals


def _train(
    problem: Problem, space: EquationGraph, asked: int, share: float, proposals: Proposals
) -> None:
    """Add the formulas of trained supernets."""
    settings = problem.settings
    room = _room(problem, space, share)
    restarts = asked
    if settings.enumerate and room < min(asked, FEWEST_RESTARTS):
        # They have not found what the rest had not, so they need not cost more than is allowed.
        proposals.counts["supernets"] = 0
        proposals.notes.append(
            "no supernets were trained: the work allowed was done before (a larger effort, or "
            "enumerate=False, trains them)"
        )
        return
    if asked > max(room, FEWEST_RESTARTS):
        restarts = max(int(room), FEWEST_RESTARTS)
        proposals.notes.append(
            f"{restarts} of {asked} supernets were trained: the work allowed was done by then"
        )
    how = SupernetSearch(
        restarts=restarts,
        steps=settings.steps,
        relaxation=settings.relaxation,
        gradient=settings.gradient,
        bilevel=settings.bilevel,
        output_in_closed_form=settings.output_in_closed_form,
    )
    searched = replace(problem.data, x_DN=problem.data.x_DN[problem.features])
    outcome = search(space, searched, how, problem.seed)
    proposals.formulas += outcome.formulas
    proposals.counts["supernets"] = restarts
    proposals.counts["supernets dropped as not finite"] = outcome.dropped
    if outcome.dropped:
        proposals.notes.append(
            f"{outcome.dropped} of {restarts} supernets stopped being finite and were dropped"
        )


def _room(problem: Problem, space: EquationGraph, share: float) -> float:
    """How many supernets can be trained with what is left of this share of the work."""
    work = problem.work
    num_constants = len(space.edges) * len(space.words)
    num_points = len(problem.data.y_N)
    left = share * work.limit - work.spent
    of_none = work.supernets(0, num_constants, num_points)
    of_one = work.supernets(1, num_constants, num_points)
    return (left / problem.settings.steps - of_none) / (of_one - of_none)


def _widened(formula: Formula, problem: Problem) -> Formula:
    """A formula over the searched features as one over all of them."""
    D = len(problem.data.x_DN)
    F = len(problem.features)
    nodes: list[Node] = []
    for node in formula.nodes:
        edges: list[Edge] = []
        for edge in node.edges:
            is_node = edge.source >= F
            source = edge.source - F + D if is_node else problem.features[edge.source]
            edges.append(replace(edge, source=source))
        nodes.append(replace(node, edges=tuple(edges)))
    return replace(formula, features=D, nodes=tuple(nodes))
