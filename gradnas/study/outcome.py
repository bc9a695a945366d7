"""What a study has come to: chosen architectures, final values, costs; from its folder alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, from_json, read_object
from gradnas.study import plan, statistics
from gradnas.study.folder import EQUAL, StudyFolder
from gradnas.study.plan import RANDOM, code_of
from gradnas.study.statistics import Difference, Sample
from gradnas.study.trials import cost_of
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.measure import Measure


@dataclass(frozen=True)
class Candidate:
    """An architecture that may be chosen.

    Attributes:
        found_by: the search that found it; of a random one `random K`.
        short: what it reached in its short training; None where it failed or is not done.
    """

    architecture: Architecture
    found_by: str
    short: float | None


@dataclass(frozen=True)
class Arm:
    """A method, or random search at its cost.

    Attributes:
        name: of the method; of random search `random`, with the methods at whose cost it is where
            they differ.
        candidates: in the order in which they were found.
        chosen: the best by the short trainings; None before there is one.
        finals: test values of its final trainings.
        cost: of its searches and short trainings, in CPU seconds (device seconds on CUDA).
        final_cost: of its final trainings.
        failed: trials of it that failed, with their sentences.
    """

    name: str
    candidates: tuple[Candidate, ...]
    chosen: Candidate | None
    finals: Sample
    cost: float
    final_cost: float
    failed: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True)
class Outcome:
    """All arms, and their comparison.

    Attributes:
        against: method -> (arm of random search at its cost, the difference of the finals).
        searched: the difference of the short trainings of all searched and all random networks.
        tau: rank agreement of short and final trainings; None where there are too few.
        ranked: architectures with both.
    """

    settings: plan.StudySettings
    measure: Measure
    arms: tuple[Arm, ...]
    against: dict[str, tuple[str, Difference | None]] = field(default_factory=dict)
    searched: dict[str, Difference | None] = field(default_factory=dict)
    tau: float | None = None
    ranked: int = 0

    def arm(self, name: str) -> Arm:
        """By its name."""
        return next(arm for arm in self.arms if arm.name == name)

    @property
    def sentences(self) -> list[str]:
        """What the data show, a sentence for each method."""
        said = []
        for method, (random, found) in self.against.items():
            if found is None:
                said.append(self._not_yet(method, random))
            elif self._same_choice(method, random):
                said.append(f"{method} and {random} search chose the same architecture")
            else:
                said.append(statistics.sentence(found, method, f"{random} search", self.measure))
        return said

    def _same_choice(self, first: str, second: str) -> bool:
        one = self.arm(first).chosen
        other = self.arm(second).chosen
        return one is not None and other is not None and one.architecture == other.architecture

    def _not_yet(self, method: str, random: str) -> str:
        for name in (method, random):
            arm = self.arm(name)
            if not arm.finals.n:
                why = f" ({arm.failed[0][1]})" if arm.failed else ""
                return f"nothing can be said of {method} yet: {name} has no final training{why}"
        raise AssertionError("there is a comparison where both have finals")


def measure_of(study: StudyFolder) -> Measure:
    """By which the networks of a study are compared."""
    config = next(iter(study.settings.methods.values()))
    cls = SEARCH_CONFIGS[str(config["type"])]
    settings: Any = from_json(cls, config, "study.json: methods")
    return kind_of(settings).of(settings).measure


def found(study: StudyFolder, search: str) -> list[Architecture]:
    """What a finished search has found: its result, then the candidates that were asked for."""
    architectures = [study.trial(search).architecture()]
    wanted = study.settings.candidates
    verdict = study.trial(search).run.result("verdict") if wanted else None
    if isinstance(verdict, dict):
        space: Any = _space(study, search)
        for text in _texts(verdict)[:wanted]:
            decision = space.decision(text)
            if decision not in architectures:
                architectures.append(decision)
    return architectures


def _texts(verdict: JsonObject) -> list[str]:
    """The candidates of a verdict; ValueError where it names them otherwise."""
    entries = verdict.get("candidates")
    texts = []
    for entry in entries if isinstance(entries, list) else [None]:
        text = entry.get("text") if isinstance(entry, dict) else None
        if not isinstance(text, str):
            raise ValueError(f"the verdict in {runs.RESULTS} does not name its candidates")
        texts.append(text)
    return texts


def _space(study: StudyFolder, search: str) -> Any:
    path = study.trial(search).path / runs.CONFIG
    config = read_object(path)
    cls = SEARCH_CONFIGS.get(str(config.get("type")))
    if cls is None:
        raise ValueError(f"{path} is no configuration of a search")
    settings: Any = from_json(cls, config, str(path))
    return settings.space


def better(one: Candidate, other: Candidate | None, measure: Measure) -> bool:
    """Whether one is to be chosen before another; of equals the first stays."""
    if one.short is None:
        return False
    if other is None or other.short is None:
        return True
    if measure.higher_is_better:
        return one.short > other.short
    return one.short < other.short


def chosen(candidates: Sequence[Candidate], measure: Measure) -> Candidate | None:
    """The best by the short trainings; None where none is done."""
    best: Candidate | None = None
    for candidate in candidates:
        if better(candidate, best, measure):
            best = candidate
    return best


def searches_of(study: StudyFolder, method: str) -> list[str]:
    """The names of all searches of a method."""
    settings = study.settings
    numbers = range(settings.seed, settings.seed + settings.seeds)
    return [plan.search_name(method, number) for number in numbers]


def searched_candidates(study: StudyFolder, method: str, key: str) -> list[Candidate]:
    """The architectures that the searches of a method have found so far."""
    candidates = []
    for search in searches_of(study, method):
        if not study.trial(search).is_finished:
            continue
        for architecture in found(study, search):
            short = study.trial(plan.short_name(architecture)).result(key)
            candidates.append(Candidate(architecture, search, short))
    return candidates


def random_candidates(study: StudyFolder, number: int, key: str) -> list[Candidate]:
    """The first so many random architectures."""
    candidates = []
    for k, architecture in enumerate(study_random(study)[:number]):
        short = study.trial(plan.short_name(architecture)).result(key)
        candidates.append(Candidate(architecture, f"random {k}", short))
    return candidates


def study_random(study: StudyFolder) -> list[Architecture]:
    """The random architectures that were drawn, in their order."""
    path = study.path / EQUAL
    if not path.exists():
        return []
    drawn = read_object(path).get("drawn")
    if not isinstance(drawn, list):
        raise ValueError(f"{path} is damaged: it must hold a list 'drawn'")
    return [from_json(Architecture, entry, str(path)) for entry in drawn]


def numbers_of_random(study: StudyFolder) -> dict[str, int]:
    """Method -> how many random architectures its cost pays for; empty before that is known."""
    path = study.path / EQUAL
    if not path.exists():
        return {}
    numbers = read_object(path).get("numbers")
    if not isinstance(numbers, dict):
        raise ValueError(f"{path} is damaged: it must hold an object 'numbers'")
    for name, value in numbers.items():
        if name not in study.settings.methods or type(value) is not int or value < 0:
            raise ValueError(f"{path} is damaged: numbers.{name} is {value!r}")
    return numbers


def random_arms(numbers: dict[str, int]) -> dict[str, tuple[str, int]]:
    """Method -> the arm of random search at its cost, and how many architectures that has."""
    if len(set(numbers.values())) <= 1:
        return {method: (RANDOM, number) for method, number in numbers.items()}
    return {method: (f"{RANDOM}-as-{method}", number) for method, number in numbers.items()}


def _arm(study: StudyFolder, name: str, candidates: list[Candidate], measure: Measure) -> Arm:
    settings = study.settings
    best = chosen(candidates, measure)
    finals = []
    final_cost = 0.0
    searches = searches_of(study, name) if name in settings.methods else []
    shorts = dict.fromkeys(plan.short_name(own.architecture) for own in candidates)
    trials = [*searches, *shorts]
    if best is not None:
        for number in range(settings.finals):
            final = plan.final_name(best.architecture, number)
            value = study.trial(final).result(f"test_{measure.key}")
            if value is not None:
                finals.append(value)
            final_cost += cost_of(study, final)
            trials.append(final)
    cost = sum(cost_of(study, own) for own in [*searches, *shorts])  # of what failed, too
    failed = []
    for trial in trials:
        if study.trial(trial).has_failed:
            failed.append((trial, study.trial(trial).sentence))
    return Arm(
        name, tuple(candidates), best, Sample(tuple(finals)), cost, final_cost, tuple(failed)
    )


def outcome_of(study: StudyFolder) -> Outcome:
    """What a study has come to so far.

    Raises:
        ValueError: a file of the study is damaged.
    """
    measure = measure_of(study)
    key = f"test_{measure.key}"
    arms: dict[str, Arm] = {}
    for method in study.settings.methods:
        arms[method] = _arm(study, method, searched_candidates(study, method, key), measure)
    beside = random_arms(numbers_of_random(study))
    for name, number in beside.values():
        if name not in arms:
            arms[name] = _arm(study, name, random_candidates(study, number, key), measure)

    against = {}
    searched = {}
    for method in study.settings.methods:
        if method not in beside:
            continue
        random, _ = beside[method]
        against[method] = (random, _difference(arms[method].finals, arms[random].finals))
        searched[method] = _difference(_shorts(arms[method]), _shorts(arms[random]))

    pairs = {}
    for arm in arms.values():
        if arm.chosen is not None and arm.chosen.short is not None and arm.finals.n:
            code = code_of(arm.chosen.architecture)
            pairs[code] = (arm.chosen.short, arm.finals.mean)
    tau = statistics.rank_agreement(list(pairs.values()))
    return Outcome(
        study.settings, measure, tuple(arms.values()), against, searched, tau, len(pairs)
    )


def _shorts(arm: Arm) -> Sample:
    """What an arm reached before any choice, a value for each search or draw.

    The further candidates of a search say nothing independent of it.
    """
    first: dict[str, float] = {}
    for own in arm.candidates:
        if own.short is not None:
            first.setdefault(own.found_by, own.short)
    return Sample(tuple(first.values()))


def _difference(first: Sample, second: Sample) -> Difference | None:
    if not first.n or not second.n:
        return None
    return statistics.difference(first.values, second.values)


# ---- as JSON -------------------------------------------------------------------------------------


def results_of(outcome: Outcome) -> JsonObject:
    """What came out: the same bytes however often a study was stopped, and on whatever engine."""
    arms: JsonObject = {}
    for arm in outcome.arms:
        best = arm.chosen
        arms[arm.name] = {
            "candidates": [_candidate(own) for own in arm.candidates],
            "chosen": None if best is None else _candidate(best),
            "final": arm.finals.to_json(),
            "failed": {name: sentence for name, sentence in arm.failed},
        }
    compared: JsonObject = {}
    for method, (random, found_) in outcome.against.items():
        shorts = outcome.searched[method]
        compared[method] = {
            "random": random,
            "finals": None if found_ is None else found_.to_json(),
            "short_trainings": None if shorts is None else shorts.to_json(),
        }
    return {
        "measure": outcome.measure.key,
        "higher_is_better": outcome.measure.higher_is_better,
        "arms": arms,
        "compared": compared,
        "sentences": list(outcome.sentences),
        "rank_agreement": {"kendall_tau": outcome.tau, "architectures": outcome.ranked},
    }


def _candidate(own: Candidate) -> JsonObject:
    return {
        "architecture": own.architecture.to_text(),
        "code": code_of(own.architecture),
        "found_by": own.found_by,
        "short": own.short,
    }


def costs_of(study: StudyFolder, outcome: Outcome) -> JsonObject:
    """What each trial and each arm cost, in CPU seconds (device seconds on CUDA)."""
    trials = {name: round(cost_of(study, name), 2) for name in study.names()}
    arms = {}
    for arm in outcome.arms:
        arms[arm.name] = {"choosing": round(arm.cost, 2), "finals": round(arm.final_cost, 2)}
    return {"trials": trials, "arms": arms, "total": round(sum(trials.values()), 2)}
