"""Random search at equal cost: how many architectures a study draws, and which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, from_json, to_json
from gradnas.distributed import pick_device
from gradnas.programs.searching import prepared_search
from gradnas.randomness import generator_for
from gradnas.spaces.affordable import cost_of as cost_of_one
from gradnas.study import outcome, plan
from gradnas.study.folder import EQUAL, StudyFolder
from gradnas.study.trials import cost_of
from gradnas.tasks import SEARCH_CONFIGS
from gradnas.tasks.base import SearchSettings, TrainSettings

RANDOM = 14  # stream of random numbers: architectures of random search
DRAWS = 200  # in a row that give nothing new: the space is taken to have no more
OUTSIDE = 2000  # draws in a row beyond the budget of the searches: there are hardly any within
VERDICT = 0.1  # of its search's work, at the most, for the candidates of a verdict


def make_equal(
    study: StudyFolder,
    training: Callable[[Architecture], TrainSettings],
    bind: Callable[[Any], Any],
    data: object,
    say: Callable[[str], None],
) -> None:
    """Reckon how many random architectures each method's cost pays for, and draw them.

    This is done once, when the searches and their short trainings are over, and written down: costs
    are measured, and another measurement would give another number.

    Args:
        training: of an architecture of the study.
        bind: gives a configuration the task of the user's own.
        data: of the study.
        say: is called where the space has not so many architectures.
    """
    path = study.path / EQUAL
    if path.exists():
        return
    costs, unit = costs_of_methods(study)
    numbers: dict[str, int] = {}
    for method, cost in costs.items():
        if study.settings.random is not None:
            numbers[method] = study.settings.random
        elif unit > 0 and cost > 0:
            numbers[method] = max(1, round(cost / unit))
        else:
            numbers[method] = 0  # nothing of the method came to an end
    most = max(numbers.values(), default=0)
    drawn = _drawn(study, most, training, bind, data)
    if len(drawn) < most:
        say(
            f"after {len(drawn)} random architectures {DRAWS} draws in a row gave no new one, or "
            f"{OUTSIDE} none within the budget: random search has these, not {most}"
        )
    entries: JsonObject = {
        "numbers": {method: min(number, len(drawn)) for method, number in numbers.items()},
        "costs": {method: round(cost, 2) for method, cost in costs.items()},
        "cost_of_a_short_training": round(unit, 3),
        "drawn": [to_json(architecture) for architecture in drawn],
    }
    runs.write_json(path, entries)


def costs_of_methods(study: StudyFolder) -> tuple[dict[str, float], float]:
    """Method -> what its searches and their short trainings cost; and the mean of one of these.

    What failed has cost, too; the mean is of those that finished.
    """
    key = f"test_{outcome.measure_of(study).key}"
    costs: dict[str, float] = {}
    finished: dict[str, float] = {}
    for method in study.settings.methods:
        searches = sum(cost_of(study, name) for name in outcome.searches_of(study, method))
        shorts: dict[str, float] = {}
        for candidate in outcome.searched_candidates(study, method, key):
            name = plan.short_name(candidate.architecture)
            shorts[name] = cost_of(study, name)
            if study.trial(name).is_finished:
                finished[name] = shorts[name]
        verdicts = VERDICT if study.settings.candidates else 0.0
        costs[method] = (1 + verdicts) * searches + sum(shorts.values())
    unit = sum(finished.values()) / len(finished) if finished else 0.0
    return costs, unit


def _drawn(
    study: StudyFolder,
    number: int,
    training: Callable[[Architecture], TrainSettings],
    bind: Callable[[Any], Any],
    data: object,
) -> list[Architecture]:
    """So many different random architectures, within the budget of the searches."""
    if not number:
        return []
    seed = study.settings.seed
    searched = next(iter(study.settings.methods.values()))
    cls = SEARCH_CONFIGS[str(searched["type"])]
    settings: Any = bind(from_json(cls, searched, "study.json")).located(study.path / "plan")
    some: Any = settings.space.random_decision(generator_for(seed, RANDOM))
    space: Any = training(some).space
    is_within = _within_budget(settings, data)
    drawn: dict[str, Architecture] = {}
    in_vain = {"known": 0, "outside": 0}
    draw = 0
    while len(drawn) < number and in_vain["known"] < DRAWS and in_vain["outside"] < OUTSIDE:
        architecture = space.random_decision(generator_for(seed, RANDOM, draw))
        draw += 1
        text = architecture.to_text()
        if text in drawn:
            in_vain["known"] += 1
        elif not is_within(architecture):
            in_vain["outside"] += 1
        else:
            drawn[text] = architecture
            in_vain = dict.fromkeys(in_vain, 0)
    return list(drawn.values())


def _within_budget(config: SearchSettings, data: object) -> Callable[[Any], bool]:
    """Whether an architecture keeps the budget that the searches must keep; without one all do."""
    cost = config.cost if config.takes_cost else None
    if cost is None or not cost.is_budget:
        return lambda _: True
    search = prepared_search(config, data, pick_device(config.device)).search
    assert search.spending is not None
    costs = search.spending.costs
    limit = cost.limit * (1 + 1e-12)  # one that is met exactly, added up in another order
    return lambda architecture: cost_of_one(search.supernet, architecture, costs) <= limit
