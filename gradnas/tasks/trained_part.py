"""What can be done with a network that was trained on a kind of data."""

from __future__ import annotations

import shlex
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Generic, Self

import torch
from torch import nn

from gradnas import runs
from gradnas.data.summary import DataSummary
from gradnas.export.source import SourceOf
from gradnas.tasks.base import T
from gradnas.tasks.sentences import NextStep


def unspoken(sentence: str) -> None:
    """Says nothing."""
    del sentence


def unsaid(summary: DataSummary) -> None:
    """Say nothing of what was read."""
    del summary


class TrainedPart(ABC, Generic[T]):
    """The part of a `Kind` that is about finished trainings.

    Attributes:
        name: as in `Kind`.
    """

    name: str

    @abstractmethod
    def untrained(self, run: runs.Run, config: T) -> nn.Module:
        """The network of a finished training with fresh weights.

        Its folder says what must be known of the data.
        """

    def load_trained(self, run: runs.Run, config: T) -> nn.Module:
        """The trained network of a finished run, in eval mode, on the CPU.

        Raises:
            ValueError: no weights yet, or weights of another network (names the first tensor that
                does not fit).
        """
        path = run.path / runs.WEIGHTS
        if not path.exists():
            raise ValueError(
                f"{run.path} holds no trained weights yet; finish it with: "
                f"gradnas resume {shlex.quote(str(run.path))}"
            )
        trained = run.result("genotype")
        if trained is not None and trained != config.genotype.to_text():
            raise ValueError(
                f"the genotype in {run.path / runs.CONFIG} is not the one that was trained, which "
                f"{runs.RESULTS} names: one of the two files was changed"
            )
        with torch.device("cpu"):
            network = self.untrained(run, config)
        try:
            network.load_state_dict(run.load_tensors(runs.WEIGHTS))
        except RuntimeError as error:
            raise ValueError(f"{path} does not fit its configuration: {error}") from error
        return network.eval()

    @abstractmethod
    def evaluate(
        self,
        run: runs.Run,
        config: T,
        source: str | None,
        device: torch.device,
        say: Callable[[DataSummary], None] = unsaid,
    ) -> str:
        """Evaluate the trained network on the test data: one line that says what came out.

        Args:
            source: of other data than those of the configuration.
            say: is called with what was read, before the evaluation.
        """

    @abstractmethod
    def export(
        self,
        run: runs.Run,
        config: T,
        path: Path,
        source: SourceOf,
        say: Callable[[str], None] = unspoken,
    ) -> list[Path]:
        """Write the trained network in the form that the ending of `path` names.

        Returns:
            The files written.

        Args:
            source: how the source of such a network is written, for `.py`.
            say: is called with what is to be said of the file.
        """

    def normalising(self) -> Self:
        """The kind whose exported networks take inputs as they are stored, and normalise inside.

        Raises:
            ValueError: inputs of this kind are not normalised.
        """
        raise ValueError(
            f"--normalised is for images: what goes into a network of {self.name} is not normalised"
        )

    def after_training(self, run: runs.Run, config: T) -> list[NextStep]:
        """What to do with a finished training, beyond what goes for any."""
        del run, config
        return []

    def generate(
        self,
        run: runs.Run,
        config: T,
        prompt: str,
        tokens: int,
        temperature: float,
        seed: int,
        say: Callable[[str], None] = unspoken,
    ) -> str:
        """Go on with a text; ValueError where the trained network is no language model.

        `say` is called with what must be known of how the prompt is read.
        """
        del config, prompt, tokens, temperature, seed, say
        raise ValueError(
            f"{run.path} was trained on {self.name}: only a language model can write text"
        )
