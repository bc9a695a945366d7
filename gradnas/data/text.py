"""Text: from a folder, a file or a name to token streams, read in chunks by truncated
back-propagation.

Legend: N tokens of a split, T tokens of a chunk, B streams read in parallel.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from gradnas.config import did_you_mean

Level = Literal["word", "char"]
EOS, UNKNOWN = "<eos>", "<unk>"
EMBEDDED = "pydoc"
SPLITS = ("train", "valid", "test")
SHARES = (0.9, 0.05)  # of a single file: train and valid; test has the rest
LAYOUTS = (
    "'pydoc' (in every Python installation), a folder with train.txt, valid.txt and test.txt, one text file, or a set "
    "of the Hugging Face hub as owner/name or owner/name:configuration"
)


# ---- words and numbers ---------------------------------------------------------------------------


@dataclass(frozen=True)
class Vocabulary:
    """Tokens (words or characters) and their numbers, in order of first appearance."""

    tokens: tuple[str, ...]
    level: Level = "word"

    def __post_init__(self) -> None:
        if self.level not in ("word", "char"):
            raise ValueError(f"level must be 'word' or 'char', not {self.level!r}")
        if not self.tokens or len(set(self.tokens)) != len(self.tokens):
            raise ValueError("a vocabulary is a non-empty list of different tokens")
        object.__setattr__(
            self, "_numbers", {token: number for number, token in enumerate(self.tokens)}
        )

    def __len__(self) -> int:
        return len(self.tokens)

    def split(self, text: str) -> list[str]:
        """Text as tokens: its characters, or its words between white space with `<eos>` after every
        line."""
        return split_text(text, self.level)

    def numbers(self, tokens: Iterable[str]) -> Tensor:
        """int64 (N,). ValueError that names the tokens which are not known, and near ones."""
        known: dict[str, int] = self._numbers  # type: ignore[attr-defined]
        tokens = list(tokens)
        missing = list(dict.fromkeys(token for token in tokens if token not in known))
        if missing:
            shown = ", ".join(
                f"{token!r}{did_you_mean(token, self.tokens)}" for token in missing[:5]
            )
            more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
            kind = "word" if self.level == "word" else "character"
            hint = f"; {UNKNOWN} stands for any rare word" if UNKNOWN in known else ""
            raise ValueError(
                f"unknown {kind}{'s' if len(missing) > 1 else ''} {shown}{more}: the vocabulary has {len(self)} "
                f"{kind}s of the training corpus{hint}"
            )
        return torch.tensor([known[token] for token in tokens], dtype=torch.int64)

    def encode(self, text: str) -> Tensor:
        """A prompt as int64 (N,): as `split`, without an `<eos>` after a last line that has no line
        break."""
        tokens = self.split(text)
        if self.level == "word" and tokens and not text.endswith("\n"):
            tokens = tokens[:-1]
        return self.numbers(tokens)

    def decode(self, numbers: Iterable[int]) -> str:
        """Text again; `<eos>` becomes a line break."""
        tokens = [self.tokens[number] for number in numbers]
        if self.level == "char":
            return "".join(tokens)
        return (
            " ".join("\n" if token == EOS else token for token in tokens)
            .replace(" \n ", "\n")
            .replace(" \n", "\n")
        )

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"level": self.level, "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, data: Mapping[str, Any], where: str) -> Vocabulary:
        """The inverse of `to_json`. ValueError that names `where`."""
        tokens = data.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"{where} holds no vocabulary: 'tokens' must be a list of texts")
        try:
            return cls(tuple(tokens), data.get("level", "word"))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def split_text(text: str, level: Level) -> list[str]:
    """Text as tokens, by the rule of the published word corpora: white space parts words, a line
    ends in `<eos>`."""
    if level == "char":
        return list(text)
    tokens: list[str] = []
    for line in text.splitlines():
        tokens += line.split()
        tokens.append(EOS)
    return tokens


# ---- corpora -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three splits of one text as token numbers, int64 (N,); the vocabulary is that of all
    three."""

    name: str
    vocabulary: Vocabulary
    train: Tensor
    valid: Tensor
    test: Tensor

    def split(self, name: str) -> Tensor:
        """A split by its name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}[name]


@dataclass(frozen=True)
class TextConfig:
    """Which text, and in which tokens.

    Args:
        source: `pydoc`, a folder with `train.txt`, `valid.txt`, `test.txt`, one text file (its
            first 90% is the training split, then 5% and 5%), or `owner/name[:configuration]` of the
            Hugging Face hub.
        level: `word` or `char`.
        min_count: words that appear less often become `<unk>`; 1 keeps all (the published corpora
            have done it already; `pydoc` has 3 at the least).

    Raises:
        ValueError: another level, a count below 1.
    """

    source: str = EMBEDDED
    level: Level = "word"
    min_count: int = 1

    def __post_init__(self) -> None:
        if self.level not in ("word", "char"):
            raise ValueError(f"level must be 'word' or 'char', not {self.level!r}")
        if self.min_count < 1:
            raise ValueError(f"min_count must be at least 1, not {self.min_count}")

    def load(self) -> Corpus:
        """Read the corpus."""
        return load_corpus(self.source, self.level, self.min_count)


def load_corpus(source: str | Path, level: Level = "word", min_count: int = 1) -> Corpus:
    """A corpus by name or path; see `TextConfig`.

    ValueError, always one sentence: a file that is missing, empty, or not UTF-8 (the byte is
    named), a folder without one of the splits, a hub set that cannot be had.
    """
    name, path = str(source), Path(source).expanduser()
    if path.is_dir():
        return _corpus(name, _folder(path), level, min_count)
    if path.is_file():
        return _halved(name, split_text(_read(path), level), level, min_count)
    if name == EMBEDDED:
        count = max(min_count, 3) if level == "word" else min_count
        return _halved(name, split_text(embedded_text(level), level), level, count)
    if "/" in name and not name.startswith((".", "/", "~")) and name.count("/") == 1:
        return _corpus(name, _hub(name), level, min_count)
    raise ValueError(f"there is no corpus {name!r}: expected {LAYOUTS}")


def embedded_text(level: Level) -> str:
    """The English text of Python's own help topics: about 450,000 characters that every
    installation has.

    At word level punctuation is parted from words, as the published corpora have it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError(
            "this Python installation lacks its help texts (module pydoc_data): give a corpus, e.g. a text file"
        ) from error
    text = "\n".join(topics[name] for name in sorted(topics))
    if level == "char":
        return text
    lines = (re.findall(r"\w+|[^\w\s]+", line.lower()) for line in text.splitlines())
    return "\n".join(" ".join(line) for line in lines if line)


def _folder(folder: Path) -> dict[str, str]:
    missing = [f"{split}.txt" for split in SPLITS if not (folder / f"{split}.txt").is_file()]
    if missing:
        raise ValueError(
            f"{folder} lacks {' and '.join(missing)}: a corpus folder has train.txt, valid.txt, test.txt"
        )
    return {split: _read(folder / f"{split}.txt") for split in SPLITS}


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The offset counts from after a byte order mark, where there is one.
        position = error.start + (3 if data.startswith(b"\xef\xbb\xbf") else 0)
        line = data[:position].count(b"\n") + 1
        raise ValueError(
            f"{path} is not UTF-8 text: byte {data[position]:#04x} at position {position} (line {line}); convert it, "
            "for example with: iconv -f latin1 -t utf-8"
        ) from error
    if not text.strip():
        raise ValueError(f"{path} is empty: a corpus needs text")
    return text


def _hub(name: str) -> dict[str, str]:
    from gradnas.data.hub import load_splits

    dataset, _, configuration = name.partition(":")
    splits = load_splits(
        dataset,
        configuration or None,
        instead="use a folder with train.txt, valid.txt and test.txt",
    )
    texts = {}
    for split, names in (
        ("train", ("train",)),
        ("valid", ("validation", "valid")),
        ("test", ("test",)),
    ):
        found = next((splits[other] for other in names if other in splits), None)
        if found is None:
            raise ValueError(f"the set {name!r} lacks a {split} split; it has {', '.join(splits)}")
        column = next((c for c in ("text", "sentence", "content") if c in found.column_names), None)
        if column is None:
            raise ValueError(
                f"the set {name!r} has no column 'text', only {', '.join(found.column_names)}"
            )
        texts[split] = "\n".join(str(line).rstrip("\n") for line in found[column])
    return texts


def _halved(name: str, tokens: list[str], level: Level, min_count: int) -> Corpus:
    """A corpus of one run of tokens, cut in three."""
    first = int(len(tokens) * SHARES[0])
    second = int(len(tokens) * (SHARES[0] + SHARES[1]))
    return _build(name, (tokens[:first], tokens[first:second], tokens[second:]), level, min_count)


def _corpus(name: str, texts: Mapping[str, str], level: Level, min_count: int) -> Corpus:
    return _build(name, [split_text(texts[split], level) for split in SPLITS], level, min_count)


def _build(name: str, splits: Sequence[list[str]], level: Level, min_count: int) -> Corpus:
    if min_count > 1:
        counts = Counter(token for tokens in splits for token in tokens)
        unknown = UNKNOWN if level == "word" else "\ufffd"  # the replacement character
        splits = [
            [t if counts[t] >= min_count or t == EOS else unknown for t in tokens]
            for tokens in splits
        ]
    vocabulary = Vocabulary(
        tuple(dict.fromkeys(token for tokens in splits for token in tokens)), level
    )
    return Corpus(name, vocabulary, *(vocabulary.numbers(tokens) for tokens in splits))


# ---- streams -------------------------------------------------------------------------------------


class Chunk(NamedTuple):
    """Some rows of a stream: `inputs_TB`, the tokens that follow them `targets_TB`, and whether the
    text starts here.

    Where `starts` is true the hidden state must be zero: no text of the stream comes before this
    chunk.
    """

    inputs_TB: Tensor
    targets_TB: Tensor
    starts: bool


@dataclass(frozen=True)
class ChunkLengths:
    """How long the chunks of an epoch are (DARTS for recurrent cells; Merity et al., arXiv
    1708.02182, section 4.5).

    A chunk has `base` rows, or with `short_probability` half of that; with `deviation` a normal
    number of that standard deviation is added; at least `least` and at most `base + 4 * deviation`.
    """

    base: int = 35
    short_probability: float = 0.05
    deviation: float = 0.0
    least: int = 5

    def __post_init__(self) -> None:
        if (
            self.base < 1
            or not 0.0 <= self.short_probability <= 1.0
            or self.deviation < 0.0
            or self.least < 1
        ):
            raise ValueError(
                f"chunk lengths need base and least of at least 1, short_probability in [0, 1] and deviation >= 0, "
                f"not {self}"
            )

    def draw(self, generator: torch.Generator) -> int:
        """The length of one chunk, in rows."""
        short = torch.rand((), generator=generator).item() < self.short_probability
        mean = self.base / 2 if short else float(self.base)
        length = mean + self.deviation * torch.randn((), generator=generator).item()
        most = self.base + int(4 * self.deviation)
        return max(min(self.least, self.base), min(int(length), most))


class TextStream:
    """A split as B texts side by side, read from the top in chunks, again and again.

    The tokens are cut into B runs of R rows (what is left over is dropped); column b is the b-th
    run. The position is this object's own, so a stream for the alphas cannot drift away from its
    hidden state.

    Args:
        tokens_N: a split of a corpus.
        columns: B.
        device: where the chunks go.
        name: of the split, for errors.

    Raises:
        ValueError: fewer tokens than two rows of all columns (says how many are needed).
    """

    def __init__(
        self, tokens_N: Tensor, columns: int, device: torch.device | str = "cpu", name: str = "text"
    ) -> None:
        if columns < 1:
            raise ValueError(f"a stream needs at least one column, not {columns}")
        rows = len(tokens_N) // columns
        if rows < 2:
            raise ValueError(
                f"the {name} split has {len(tokens_N)} tokens, but {columns} streams of a batch need at least "
                f"{2 * columns} (a row of inputs and one of targets); use a smaller batch or a longer text"
            )
        self.data_RB = tokens_N[: rows * columns].reshape(columns, rows).t().contiguous().to(device)
        self.row = 0

    @property
    def rows(self) -> int:
        """Rows that are inputs: each has a row of targets after it."""
        return len(self.data_RB) - 1

    @property
    def finished(self) -> bool:
        """Whether the text was read to its end; the next chunk then starts over."""
        return self.row >= self.rows

    def next(self, length: int) -> Chunk:
        """The next `length` rows, fewer at the end of the text."""
        if length < 1:
            raise ValueError(f"a chunk has at least one row, not {length}")
        if self.finished:
            self.row = 0
        first, last = self.row, min(self.row + length, self.rows)
        self.row = last
        return Chunk(self.data_RB[first:last], self.data_RB[first + 1 : last + 1], first == 0)

    def rewind(self) -> None:
        """Back to the top."""
        self.row = 0

    def state_dict(self) -> dict[str, int]:
        """The position."""
        return {"row": self.row}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """The inverse of `state_dict`. ValueError for a position outside this text."""
        row = state["row"]
        if not 0 <= row <= self.rows:
            raise ValueError(
                f"row {row} lies outside a text of {self.rows} rows: the state is of another corpus"
            )
        self.row = row
