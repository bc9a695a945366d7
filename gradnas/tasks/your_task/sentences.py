"""What runs on a task of one's own say in the terminal."""

from __future__ import annotations

from collections.abc import Sequence

from gradnas.architectures.choices import Choices
from gradnas.runs import Record
from gradnas.tasks.costs import cost_sentence
from gradnas.tasks.measure import Measure
from gradnas.tasks.sentences import Sentences, health_lines, no_result_lines, verdict_lines
from gradnas.tasks.your_task.settings import TaskSearchConfig

NAME_WIDTH = 28  # of a choice in the terminal; of longer names the end


class TaskSentences(Sentences[TaskSearchConfig]):
    """What searches and trainings on a task of one's own say of their results."""

    def __init__(self, measure: Measure, others: Sequence[Measure] = ()) -> None:
        super().__init__(measure)
        self.others = others

    def of_training(self, results: Record, random_noun: str) -> list[str]:
        sentences = super().of_training(results, random_noun)
        if "random_cells" in results:
            sentences.append(self._compared(results, random_noun))
        for other in self.others:
            sentences.append(f"test {other.key} {other.text(results[f'test_{other.key}'])}")
        return sentences

    def _compared(self, results: Record, random_noun: str) -> str:
        """What the report says of the trained network beside the random ones."""
        key = self.measure.key
        random = results["random_cells"]
        compared = self.measure.compared(
            results[f"test_{key}"],
            random[f"mean_test_{key}"],
            random[f"std_test_{key}"],
            len(random[f"test_{self.measure.plural}"]),
        )
        than = f" than random {random_noun}s" if compared in ("better", "worse") else ""
        return f"compared with them: {compared}{than}"

    def of_search(self, config: TaskSearchConfig, results: Record) -> list[str]:
        measured = verdict_lines(results, config.task_option)
        sentences = [*self._choices(results), *health_lines(results), *measured]
        key = self.measure.key
        derived = None if measured else results.get(f"derived_valid_{key}")
        if derived is not None:
            mixture = ""
            if f"valid_{key}" in results:
                mixture = f"mixture {self.measure.text(results[f'valid_{key}'])}, "
            sentences.append(
                f"held-out {key}: {mixture}derived network with its weights "
                f"{self.measure.text(derived)}"
            )
        if config.cost is not None:
            sentences.append(cost_sentence(config.cost, results["cost"]))
        return sentences

    def _choices(self, results: Record) -> list[str]:
        """A line for each choice: what was decided, how probable it is, and what comes next."""
        decided = Choices.parse(results["genotype"])
        width = min(NAME_WIDTH, max(len(name) for name in results["probabilities"]))
        lines = []
        for name, probabilities in results["probabilities"].items():
            label = name if len(name) <= width else f"…{name[1 - width :]}"
            if name not in decided:
                lines.append(f"  {label:{width}}  not reached")
                continue
            chosen = decided[name]
            line = f"  {label:{width}}  {chosen} {probabilities[chosen]:.3f}"
            others = sorted((p, own) for own, p in probabilities.items() if own != chosen)
            if others:
                line += f"  (then {others[-1][1]} {others[-1][0]:.3f})"
            lines.append(line)
        if "undecided" in results:
            return [
                *no_result_lines(results),
                "what is strongest, which may be chance, with its probability:",
                *lines,
            ]
        return ["choices, with their probabilities:", *lines]

    def tested_on(self, results: Record) -> str:
        return f"{results['num_test_examples']} held-out examples"
