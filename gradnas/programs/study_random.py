"""Random search at equal cost: how many architectures a study draws, and which."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, from_json, to_json
from gradnas.randomness import generator_for
from gradnas.study import outcome, plan
from gradnas.study.folder import EQUAL, StudyFolder
from gradnas.study.trials import cost_of
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import TrainSettings

RANDOM = 14  # stream of random numbers: architectures of random search
DRAWS = 200  # in a row that give nothing new: the space is taken to have no more
VERDICT = 0.1  # of its search's work, at the most, for the candidates of a verdict


def make_equal(
    study: StudyFolder,
    training: Callable[[Architecture], TrainSettings],
    bind: Callable[[Any], Any],
    say: Callable[[str], None],
) -> None:
    """Reckon how many random architectures each method's cost pays for, and draw them.

    This is done once, when the searches and their short trainings are over, and written down: costs
    are measured, and another measurement would give another number.

    Args:
        training: of an architecture of the study.
        bind: gives a configuration the task of the user's own.
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
    drawn = _drawn(study, most, training, bind)
    if len(drawn) < most:
        say(
            f"{DRAWS} random draws in a row gave no new architecture after {len(drawn)}: random "
            f"search has these, not {most}"
        )
    entries: JsonObject = {
        "numbers": {method: min(number, len(drawn)) for method, number in numbers.items()},
        "costs": {method: round(cost, 2) for method, cost in costs.items()},
        "cost_of_a_short_training": round(unit, 3),
        "drawn": [to_json(architecture) for architecture in drawn],
    }
    runs.write_json(path, entries)


def costs_of_methods(study: StudyFolder) -> tuple[dict[str, float], float]:
    """Method -> what its searches and their short trainings cost; and the mean of one of these."""
    key = f"test_{outcome.measure_of(study).key}"
    costs: dict[str, float] = {}
    shorts: dict[str, float] = {}
    for method in study.settings.methods:
        searches: dict[str, float] = {}
        own: dict[str, float] = {}
        for candidate in outcome.searched_candidates(study, method, key):
            searches[candidate.found_by] = cost_of(study, candidate.found_by)
            name = plan.short_name(candidate.architecture)
            if study.is_finished(name):
                own[name] = cost_of(study, name)
        verdicts = VERDICT if study.settings.candidates else 0.0
        costs[method] = (1 + verdicts) * sum(searches.values()) + sum(own.values())
        shorts |= own
    unit = sum(shorts.values()) / len(shorts) if shorts else 0.0
    return costs, unit


def _drawn(
    study: StudyFolder,
    number: int,
    training: Callable[[Architecture], TrainSettings],
    bind: Callable[[Any], Any],
) -> list[Architecture]:
    """So many different random architectures, within the budget of the searches."""
    if not number:
        return []
    seed = study.settings.seed
    searched = next(iter(study.settings.methods.values()))
    cls = SEARCH_CONFIGS[str(searched["type"])]
    settings: Any = bind(from_json(cls, searched, "study.json"))
    config = training(settings.space.random_decision(generator_for(seed, RANDOM)))
    kind = kind_of(config)
    drawn: dict[str, Architecture] = {}
    last_new = 0
    draw = 0
    while len(drawn) < number and draw - last_new < DRAWS:
        architecture = kind.random_architecture(config, generator_for(seed, RANDOM, draw))
        text = architecture.to_text()
        if text not in drawn:
            drawn[text] = architecture
            last_new = draw
        draw += 1
    return list(drawn.values())
