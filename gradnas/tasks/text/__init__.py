"""Text, read token after token: searches and trainings of language models."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import nn

from gradnas import runs
from gradnas.data import Corpus, TextConfig, TextStream
from gradnas.data.summary import DataSummary
from gradnas.export.programs import METADATA
from gradnas.export.source import SourceOf
from gradnas.memory import check_fits, module_bytes
from gradnas.spaces import RecurrentNetwork
from gradnas.tasks.kind import Kind
from gradnas.tasks.measure import Measure
from gradnas.tasks.sentences import NextStep, about
from gradnas.tasks.text.data_part import TextDataPart
from gradnas.tasks.text.export import export_language_model
from gradnas.tasks.text.generation import generate
from gradnas.tasks.text.reading import (
    evaluate_text,
    most_frequent,
    read_vocabulary,
    unknown_share,
)
from gradnas.tasks.text.search import TextSearch
from gradnas.tasks.text.sentences import TextSentences, share_text, unknown_notes
from gradnas.tasks.text.settings import TextSearchConfig, TextTrainConfig
from gradnas.tasks.text.summary import (
    as_read,
)
from gradnas.tasks.text.training import TextTraining
from gradnas.tasks.text.words import TextWords
from gradnas.tasks.trained_part import unsaid, unspoken

GENERATED_TOKENS = 100  # by default
TRIED_TOKENS = 5  # to see how long they take


class Text(TextDataPart, Kind[TextSearchConfig, TextTrainConfig, Corpus]):
    """Text, measured by the perplexity of a language model."""

    name = "text"
    measure = Measure("perplexity", "perplexities", higher_is_better=False)
    words = TextWords()
    search_config = TextSearchConfig
    train_config = TextTrainConfig
    data_config = TextConfig
    data_of_search = ("source", "level", "min_count")
    sheet_name = "sheet.txt"
    no_estimate = (
        "--estimate is for searches on images; try a search on text out with --max-steps 3"
    )

    @property
    def sentences(self) -> TextSentences:
        return TextSentences(self.measure)

    # -- runs --

    def check_search(self, config: TextSearchConfig, data: Corpus, device: torch.device) -> None:
        """A text that is too short for the batch is refused (says how long it must be)."""
        for name in ("train", "valid"):
            TextStream(data.split(name), config.batch_size, name=name)
        _check_memory(lambda: config.space.supernet(len(data.vocabulary)), device)

    def settled(
        self, config: TextTrainConfig, data: Corpus, chosen: Collection[str]
    ) -> tuple[TextTrainConfig, list[str]]:
        """With fewer texts side by side where a split is too short for as many."""
        fitting: dict[str, Any] = {}
        notes = []
        for name, split in (
            ("batch_size", "train"),
            ("eval_batch_size", "valid"),
            ("test_batch_size", "test"),
        ):
            wanted = getattr(config, name)
            tokens = len(data.split(split))
            if name in chosen or tokens >= 2 * wanted:
                continue
            # As many as can be read for a whole chunk and the token after it.
            fitting[name] = max(1, tokens // (config.chunks.base + 1))
            notes.append(
                f"{name} is {fitting[name]}, not {wanted}: the {split} split has only "
                f"{tokens:,} {config.data.level}s"
            )
        return replace(config, **fitting), notes

    def check_training(self, config: TextTrainConfig, data: Corpus, device: torch.device) -> None:
        """A text that is too short for the batch is refused (says how long it must be)."""
        _check_memory(lambda: config.space.network(config.genotype, len(data.vocabulary)), device)
        TextStream(data.train, config.batch_size, name="train")
        TextStream(data.valid, config.eval_batch_size, name="valid")
        TextStream(data.test, config.test_batch_size, name="test")

    def search_task(
        self, config: TextSearchConfig, data: Corpus, device: torch.device
    ) -> TextSearch:
        return TextSearch(config, data, device)

    def train_task(
        self,
        config: TextTrainConfig,
        data: Corpus,
        device: torch.device,
        network: nn.Module | None = None,
    ) -> TextTraining:
        return TextTraining(config, data, device, network)

    # -- after a training --

    def untrained(self, run: runs.Run, config: TextTrainConfig) -> RecurrentNetwork:
        return config.space.network(config.genotype, len(read_vocabulary(run)))

    def load_trained(self, run: runs.Run, config: TextTrainConfig) -> RecurrentNetwork:
        network = super().load_trained(run, config)
        assert isinstance(network, RecurrentNetwork)
        return network

    def evaluate(
        self,
        run: runs.Run,
        config: TextTrainConfig,
        source: str | None,
        device: torch.device,
        say: Callable[[DataSummary], None] = unsaid,
    ) -> str:
        model = self.load_trained(run, config)
        vocabulary = read_vocabulary(run)
        # Its words as they stand, whatever that text calls rare: what the model has no word for is
        # decided by the vocabulary of the model.
        corpus = replace(config.data, source=source or config.data.source, min_count=1).load()
        words = [corpus.vocabulary.tokens[k] for k in corpus.test.tolist()]
        # Another text has other numbers for its words: those of the model are meant.
        stream = TextStream(vocabulary.numbers(words), config.test_batch_size, device, "test")
        say(self.read(as_read(corpus, vocabulary)))
        test = evaluate_text(model.to(device), stream)
        count = stream.rows * config.test_batch_size
        reached = self.measure.text(test["perplexity"])
        share = share_text(unknown_share(stream, vocabulary), vocabulary.level)
        said = (
            f"test perplexity {reached} ({share})  loss {test['loss']:.4f}  "
            f"on {count:,} {vocabulary.level}s"
        )
        return "\n".join([said, *unknown_notes(vocabulary, words, "the text")])

    def export(
        self,
        run: runs.Run,
        config: TextTrainConfig,
        path: Path,
        source: SourceOf,
        say: Callable[[str], None] = unspoken,
    ) -> list[Path]:
        del source  # a language model has none
        model = self.load_trained(run, config)
        vocabulary = read_vocabulary(run)
        files = export_language_model(model, vocabulary, path, genotype=config.genotype)
        H = model.hidden
        say(
            f"in: tokens (1, B), int64, and hidden (B, {H}), float32, zeros where a text begins; "
            f"the numbers of tokens are those of vocabulary in its metadata ({METADATA})"
        )
        say(f"out: log_prob (1, B, {len(vocabulary)}) and the next hidden (B, {H})")
        return files

    def generate(
        self,
        run: runs.Run,
        config: TextTrainConfig,
        prompt: str,
        tokens: int,
        temperature: float,
        seed: int,
        say: Callable[[str], None] = unspoken,
    ) -> str:
        model = self.load_trained(run, config)
        vocabulary = read_vocabulary(run)
        begin = most_frequent(run, vocabulary)
        text = generate(model, vocabulary, prompt, tokens, temperature, seed, begin)
        for note in unknown_notes(vocabulary, vocabulary.prompt_tokens(prompt), "the prompt"):
            say(note)
        return text

    def after_training(self, run: runs.Run, config: TextTrainConfig) -> list[NextStep]:
        began = time.perf_counter()
        self.generate(run, config, "", TRIED_TOKENS, 1.0, seed=0)
        seconds = (time.perf_counter() - began) * GENERATED_TOKENS / TRIED_TOKENS
        return [
            NextStep(
                f"gradnas generate {shlex.quote(str(run.path))}",
                f"({GENERATED_TOKENS} {config.data.level}s that the model writes: "
                f"{about(seconds)}, by {TRIED_TOKENS} of them)",
            )
        ]


TEXT = Text()


def _check_memory(make: Callable[[], nn.Module], device: torch.device) -> None:
    """ValueError for a network whose weights and gradients alone do not fit into memory."""
    with contextlib.suppress(RuntimeError):  # one that looks at its values when it is made
        with torch.device("meta"):
            network = make()
        advice = "a smaller --hidden needs less"
        check_fits(2.0 * module_bytes(network), device, "a step", advice)
