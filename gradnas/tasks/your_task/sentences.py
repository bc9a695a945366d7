"""What runs on a task of one's own say in the terminal."""

from __future__ import annotations

from gradnas import runs
from gradnas.runs import Record
from gradnas.tasks.costs import cost_sentence
from gradnas.tasks.sentences import Sentences
from gradnas.tasks.your_task.settings import TaskSearchConfig


class TaskSentences(Sentences[TaskSearchConfig]):
    """What searches and trainings on a task of one's own say of their results."""

    def of_search(self, config: TaskSearchConfig, results: Record) -> list[str]:
        sentences = []
        key = self.measure.key
        derived = results.get(f"derived_valid_{key}")
        if derived is not None:
            mixture = ""
            if f"valid_{key}" in results:
                mixture = f"mixture {self.measure.text(results[f'valid_{key}'])}, "
            sentences.append(
                f"held-out {key}: {mixture}derived network with its weights "
                f"{self.measure.text(derived)}"
            )
        if "undecided" in results:
            sentences.append(f"warning: {results['undecided']}")
        if config.cost is not None:
            sentences.append(cost_sentence(config.cost, results["cost"]))
        return sentences

    def tested_on(self, results: Record) -> str:
        return f"{results['num_test_examples']} held-out examples"

    def next_commands(self, run: runs.Run) -> list[str]:
        del run
        return []
