"""What runs on text say in the terminal."""

from __future__ import annotations

from gradnas import runs
from gradnas.runs import Record
from gradnas.tasks.sentences import Sentences
from gradnas.tasks.text.settings import TextSearchConfig


class TextSentences(Sentences[TextSearchConfig]):
    """What searches and trainings on text say of their results."""

    def of_search(self, config: TextSearchConfig, results: Record) -> list[str]:
        sentences = super().of_search(config, results)
        if "valid_perplexity" in results:
            reached = self.measure.text(results["valid_perplexity"])
            sentences.append(f"perplexity of the mixture on the validation text: {reached}")
        return sentences

    def tested_on(self, results: Record) -> str:
        tokens = f"{results['num_test_tokens']:,} {results['data']['level']}s"
        return f"{tokens}, validation {self.measure.text(results['valid_perplexity'])}"

    def next_commands(self, run: runs.Run) -> list[str]:
        return [f"gradnas generate {run.path}"]
