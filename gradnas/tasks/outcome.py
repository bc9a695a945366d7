"""What came of a search: its results, what it is worth, and what there is to say of it."""

from __future__ import annotations

from abc import ABC
from typing import Generic, TypeVar

from gradnas.runs import Record
from gradnas.search.choosing import best_candidate
from gradnas.search.chosen import Chosen, not_chosen
from gradnas.search.comparing import Judge, compare
from gradnas.search.judging import as_it_was
from gradnas.search.result import SearchResult
from gradnas.search.search import Search
from gradnas.search.slices import FAILURES
from gradnas.search.verdict import Verdict
from gradnas.search.verdict_limits import wanted_of
from gradnas.tasks.decidedness import Decidedness
from gradnas.tasks.measure import Measure

LOSS = Measure("loss", "losses", higher_is_better=False)
NOT_MEASURED = "nothing measures candidates on such data"
RANDOM = 4  # architectures that are measured at the end of a search, at most

S = TypeVar("S")  # the configuration


class Outcome(ABC, Generic[S]):
    """The part of a `SearchTask` that is about what came of it.

    Attributes:
        result_keys: metrics of the last epoch that are results.
        decidedness: how far the alphas have come from where they began.
    """

    config: S
    search: Search
    result_keys: tuple[str, ...]
    decidedness: Decidedness

    def judge(self, result: SearchResult, measure: Measure) -> Judge | None:
        """What measures architectures on the held-out data; None where nothing does.

        Args:
            measure: of the kind of data.
        """
        del result, measure
        return None

    def check_scores(self) -> None:
        """ValueError where the selection scores networks without a training, and cannot these."""
        search = self.search
        if search.selection.drawings:
            with as_it_was(search.passes.seed, ()):
                result = search.result_by_alphas()
                judge = self.judge(result, LOSS)
                if judge is None:
                    raise ValueError(NOT_MEASURED)
                judge.by_score(1).check(result.decision)

    def choose(self, measure: Measure) -> Chosen | str | None:
        """Take the best of the candidates that the selection asks for, if it asks for any.

        Returns:
            A sentence where they could not be measured, None where there are none.
        """
        search = self.search
        selection = search.selection
        if not any(selection.candidates):
            return None
        try:
            with as_it_was(search.passes.seed, ()):
                result = search.result_by_alphas()
                judge = self.judge(result, LOSS if selection.by_loss else measure)
                if judge is None:
                    return f"{NOT_MEASURED}: the decision is the alphas'"
                if selection.drawings:
                    judge = judge.by_score(selection.drawings)
                best = best_candidate(search, result, judge, selection.candidates)
        except FAILURES as error:  # the result of a search must not be lost for it
            return not_chosen(error)
        return search.take_chosen(best)

    def verdict(self, result: SearchResult, measure: Measure) -> Verdict | str | None:
        """What the search is worth; a sentence where it could not be told, None where unwanted.

        Nothing of the search changes. What is measured follows from counts alone, so that a run
        that was resumed has the same verdict.
        """
        candidates, share = wanted_of(getattr(self.config, "candidates", None))
        if candidates == 0:
            return None
        search = self.search
        try:
            with as_it_was(search.passes.seed, ()):
                judge = self.judge(result, measure)
                if judge is None:
                    return None
                judge.of_run = True
                random = min(candidates, RANDOM)
                limit = judge.limit(search.schedule, share)
                verdict = compare(search, result, judge, candidates, random, limit)
        except FAILURES as error:  # the result of a search must not be lost for its verdict
            return f"the derived network could not be compared with others: {error}"
        return search.take_verdict(verdict)

    def more_metrics(self, result: SearchResult) -> Record:
        """Metrics of an epoch that only this kind of data has."""
        del result
        return {}

    def warnings(self, record: Record) -> list[str]:
        """What is to be said of the metrics of an epoch, without the word "warning"."""
        del record
        return []

    def results(self, result: SearchResult, last: Record) -> Record:
        """The results of the whole search; `last` are the metrics of its last epoch."""
        found: Record = {"genotype": result.decision.to_text(), "steps": self.search.steps}
        found |= {key: last[key] for key in self.result_keys if key in last}
        if result.cost is not None:
            found["cost"] = result.cost
        undecided = self.decidedness.undecided()
        chosen = self.search.chosen
        if chosen is not None:
            found["selection"] = chosen.to_json()
            if undecided is not None:
                found["selection"]["alphas"] = undecided
            undecided = chosen.undecided
        if undecided is not None:
            found["undecided"] = undecided
        found |= self.search.health.results()
        return found
