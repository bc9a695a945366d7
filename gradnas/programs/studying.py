"""A study: repeated searches, the best found chosen by short trainings, random search beside it.

The protocol of DARTS (arXiv 1806.09055, section 3.1): several searches, each found network trained
briefly on the data that trained the weights of its search, the best one chosen on those of the
alphas; then several final trainings, each tested once. Random search gets as many architectures as
the same cost pays for, and is chosen and trained in the same way.

What is to be done next follows from the study's folder alone. Whoever starts it again, on whatever
engine, finds what is done by the names of the trials, and repeats nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gradnas import runs
from gradnas.architectures.base import Architecture
from gradnas.config import JsonObject, from_json, read_object, to_json
from gradnas.engines.base import Ended, Engine, Job
from gradnas.families import recipes
from gradnas.programs.jobs import TRIES, end_in_words, was_killed, why_failed
from gradnas.programs.study_random import make_equal
from gradnas.randomness import generator_for
from gradnas.study import outcome, plan
from gradnas.study.folder import COSTS, StudyFolder
from gradnas.study.plan import StudySettings, Trial
from gradnas.tasks import SEARCH_CONFIGS, kind_of
from gradnas.tasks.base import SearchSettings, TrainSettings

SHORTER = 6  # DARTS: 100 of 600 epochs to choose by, or 300 of 3,600 on text
HEARTBEAT = 1.0  # seconds

Say = Callable[[str], None]
Bind = Callable[[Any], Any]


@dataclass
class Study:
    """A study with everything that its trials need.

    Args:
        folder: with its settings.
        data: that were loaded once, to see what they are.
        bind: gives a configuration the task of the user's own.
        command: of a trial, by the path of its run folder.
        say: is called with a line for whoever watches.
        max_failures: more failed trials end the study; None: none does.
        threads: cores of a trial.
    """

    folder: StudyFolder
    data: object
    bind: Bind
    command: Callable[[str], tuple[str, ...]]
    say: Say
    max_failures: int | None = None
    threads: int = 1
    _tries: dict[str, int] = field(default_factory=dict)
    _failed: int = 0

    @property
    def settings(self) -> StudySettings:
        """What is to be done."""
        return self.folder.settings

    # ---- what is to be done ----------------------------------------------------------------------

    def due(self) -> list[Trial]:
        """The trials that can be known of now: all of a phase, once what they need is over.

        Those that are over are among them.
        """
        trials = self._searches()
        shorts = self._shorts_of_searches()
        trials += shorts
        if not self._are_over(trials):
            return trials
        randoms = self._shorts_of_random()
        trials += randoms
        if not self._are_over(randoms):
            return trials
        return trials + self._finals()

    def _are_over(self, trials: Sequence[Trial]) -> bool:
        return all(self.folder.trial(trial.name).is_over for trial in trials)

    def _searches(self) -> list[Trial]:
        trials = []
        for method, config in self.settings.methods.items():
            for number in range(self.settings.seeds):
                seed = self.settings.seed + number
                name = plan.search_name(method, seed)
                trials.append(Trial(name, "search", {**config, "seed": seed}))
        return trials

    def _shorts_of_searches(self) -> list[Trial]:
        trials: dict[str, Trial] = {}
        for method in self.settings.methods:
            for number in range(self.settings.seeds):
                search = plan.search_name(method, self.settings.seed + number)
                if self.folder.trial(search).is_finished:
                    for architecture in outcome.found(self.folder, search):
                        trial = self._short(architecture)
                        trials[trial.name] = trial
        return list(trials.values())

    def _shorts_of_random(self) -> list[Trial]:
        make_equal(self.folder, self.training, self.bind, self.data, self.say)
        return [self._short(architecture) for architecture in outcome.study_random(self.folder)]

    def _finals(self) -> list[Trial]:
        chosen: dict[str, Architecture] = {}
        for arm in outcome.outcome_of(self.folder).arms:
            if arm.chosen is not None:
                chosen[plan.code_of(arm.chosen.architecture)] = arm.chosen.architecture
        trials = []
        for architecture in chosen.values():
            for number in range(self.settings.finals):
                config = replace_known(
                    self.training(architecture),
                    epochs=self.settings.final_epochs,
                    seed=self.settings.seed + number,
                )
                name = plan.final_name(architecture, number)
                trials.append(Trial(name, "final", _written(config)))
        return trials

    def _short(self, architecture: Architecture) -> Trial:
        config = replace_known(
            self.training(architecture),
            epochs=self.settings.short_epochs,
            seed=self.settings.seed,
            division=self.settings.division,
        )
        return Trial(plan.short_name(architecture), "short", _written(config))

    def training(self, architecture: Architecture) -> TrainSettings:
        """How an architecture of this study is trained, at its whole length."""
        searched = next(iter(self.settings.methods.values()))
        config = training_of(architecture, searched, self.settings.training, self.bind)
        kind = kind_of(config)
        config, _ = kind.settled(config, self.data, ())
        return replace_known(config, threads=self.settings.threads)

    # ---- doing it --------------------------------------------------------------------------------

    def run(self, engine: Engine, heartbeat: Callable[[], None] | None = None) -> None:
        """Do what is left.

        Args:
            heartbeat: is called now and then.

        Raises:
            ValueError: more trials failed than may.
        """
        at_work: dict[str, Trial] = {}
        while True:
            due = self.due()
            for trial in due:
                if trial.name not in at_work and not self.folder.trial(trial.name).is_over:
                    self.folder.trial(trial.name).plan(trial.config)
                    at_work[trial.name] = trial
                    engine.submit(self._job(trial.name))
            if not at_work:
                return
            ended = engine.wait(HEARTBEAT)
            for one in ended:
                if self._is_over(one):
                    del at_work[one.name]
                else:
                    engine.submit(self._job(one.name))
            if heartbeat is not None:
                heartbeat()

    def _job(self, name: str) -> Job:
        return Job(name, self.command(name), self.folder.trial(name).log, self.settings.threads)

    def _is_over(self, ended: Ended) -> bool:
        """Take note of a job's end; whether its trial is over, or is to be tried again."""
        name = ended.name
        if self.folder.trial(name).is_finished:
            self.say(f"{name}: finished")
            return True
        self._tries[name] = self._tries.get(name, 0) + 1
        if was_killed(ended) and self._tries[name] < TRIES:
            self.say(f"{name}: {end_in_words(ended)}; it goes on")
            return False
        trial = self.folder.trial(name)
        sentence = why_failed(ended, trial.run, trial.log)
        self.folder.trial(name).fail(sentence)
        self._failed += 1
        self.say(f"{name}: failed: {sentence}")
        if self.max_failures is not None and self._failed > self.max_failures:
            raise ValueError(
                f"{self._failed} trials failed, and --max-failures is {self.max_failures}; the "
                f"last one, {name}: {sentence}"
            )
        return True

    def write_outcome(self) -> outcome.Outcome:
        """Write the results and the costs into the folder."""
        found = outcome.outcome_of(self.folder)
        runs.write_json(self.folder.path / runs.RESULTS, outcome.results_of(found))
        runs.write_json(self.folder.path / COSTS, outcome.costs_of(self.folder, found))
        return found


# ---- configurations ------------------------------------------------------------------------------


def replace_known(config: Any, **values: Any) -> Any:
    """A configuration with other values of fields that every one has."""
    return replace(config, **values)


def _written(config: TrainSettings) -> JsonObject:
    written = to_json(config)
    assert isinstance(written, dict)
    return written


def training_of(
    architecture: Architecture, searched: JsonObject, recipe: str | None, bind: Bind
) -> TrainSettings:
    """The training of an architecture by the recipe that belongs to the search.

    Args:
        searched: the configuration of the search.
        recipe: its name; None: the one that belongs to it.
        bind: gives it the task of the user's own.

    Raises:
        ValueError: no recipe trains it.
    """
    _, config = recipes.training_of(architecture, "the study", searched, recipe)
    config = bind(config)
    return replace(config, data=_same_data(config.data, searched.get("data", {})))


def _same_data(data: Any, searched: Mapping[str, Any]) -> Any:
    """The data of a training with all that those of the search say, but how they are augmented."""
    kept = {}
    for name in ("per_class", "max_pixels", "workers", "lowercase"):
        if name in searched and hasattr(data, name):
            kept[name] = searched[name]
    return replace(data, **kept) if kept else data


def training_recipe(config: SearchSettings, recipe: str | None) -> str:
    """The name of the recipe by which what a search finds is trained."""
    architecture: Any = config.space.random_decision(generator_for(0))
    if recipe is not None:
        return recipe
    written = to_json(config)
    assert isinstance(written, dict)
    return recipes.training_after(architecture, "the study", written)


def short_epochs(final: int) -> int:
    """Epochs of a training that chooses, of so many of a final one."""
    return max(1, math.ceil(final / SHORTER))


def read_trial(study: StudyFolder, name: str) -> Any:
    """The configuration of a planned trial, without its task.

    Raises:
        ValueError: there is no such trial, or its file is damaged.
    """
    from gradnas.tasks import TRAIN_CONFIGS

    path = study.trial(name).planned
    description = read_object(path)
    classes: dict[str, Any] = {**SEARCH_CONFIGS, **TRAIN_CONFIGS}
    cls = classes.get(str(description.get("type")))
    if cls is None:
        raise ValueError(f"{path} is no configuration of a search or of a training")
    return from_json(cls, description, str(path)).located(path.parent)
