"""Text: from a folder, a file or a name to a corpus of token numbers.

Legend: N tokens of a split.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from gradnas import extras
from gradnas.config import JsonObject, check_numbers, did_you_mean
from gradnas.data.characters import decoded, lines, with_plain_ends
from gradnas.data.located import expanded, located_source

Level = Literal["word", "char"]
EOS = "<eos>"
UNKNOWN = "<unk>"
# What stands for tokens that a vocabulary lacks; of characters it is that of Unicode.
UNKNOWN_SIGNS: Mapping[str, str] = {"word": UNKNOWN, "char": "\ufffd"}
EMBEDDED = "pydoc"
EMBEDDED_MIN_COUNT = 3  # of its words
SPLITS = ("train", "valid", "test")
SHARES = (0.9, 0.05)  # of a single file: train and valid; test has the rest
MOST_NAMED = 5  # unknown tokens that an error lists
LAYOUTS = (
    "'pydoc' (in every Python installation), a folder with train.txt, valid.txt and test.txt, "
    "one text file, or a set of the Hugging Face hub as owner/name or owner/name:configuration"
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
        numbers = {token: number for number, token in enumerate(self.tokens)}
        object.__setattr__(self, "_numbers", numbers)

    def __len__(self) -> int:
        return len(self.tokens)

    def split(self, text: str) -> list[str]:
        """Text as tokens of this level; see `split_text`."""
        return split_text(text, self.level)

    @property
    def unknown(self) -> int | None:
        """The number of the token that stands for unknown ones; None where there is no such one."""
        known: dict[str, int] = self._numbers  # type: ignore[attr-defined]
        return known.get(UNKNOWN_SIGNS[self.level])

    def lacking(self, tokens: Iterable[str]) -> list[str]:
        """Those of some tokens that are not known, as often as they come."""
        known: dict[str, int] = self._numbers  # type: ignore[attr-defined]
        return [token for token in tokens if token not in known]

    def numbers(self, tokens: Iterable[str]) -> Tensor:
        """int64 (N,); a token that is not known has the number `unknown`.

        ValueError where there is no such number: it names the tokens, and near ones.
        """
        known: dict[str, int] = self._numbers  # type: ignore[attr-defined]
        tokens = list(tokens)
        unknown = self.unknown
        if unknown is not None:
            found = [known.get(token, unknown) for token in tokens]
            return torch.tensor(found, dtype=torch.int64, device="cpu")
        missing = list(dict.fromkeys(self.lacking(tokens)))
        if missing:
            raise ValueError(self._unknown(missing))
        found = [known[token] for token in tokens]
        return torch.tensor(found, dtype=torch.int64, device="cpu")

    def _unknown(self, missing: Sequence[str]) -> str:
        """What to say of tokens that are not known."""
        shown = []
        for token in missing[:MOST_NAMED]:
            shown.append(f"{token!r}{did_you_mean(token, self.tokens)}")
        num_more = len(missing) - MOST_NAMED
        more = f" and {num_more} more" if num_more > 0 else ""
        kind = "word" if self.level == "word" else "character"
        plural = "s" if len(missing) > 1 else ""
        return (
            f"unknown {kind}{plural} {', '.join(shown)}{more}: the vocabulary has {len(self)} "
            f"{kind}s of the training corpus, and none that stands for unknown ones"
        )

    def encode(self, text: str) -> Tensor:
        """A prompt as int64 (N,): `numbers` of `prompt_tokens`."""
        return self.numbers(self.prompt_tokens(text))

    def prompt_tokens(self, text: str) -> list[str]:
        """A text to go on with: as `split`, without `<eos>` after a line that is not ended."""
        tokens = self.split(text)
        is_ended = text.endswith(("\n", "\r"))
        if self.level == "word" and tokens and not is_ended:
            tokens = tokens[:-1]
        return tokens

    def decode(self, numbers: Iterable[int]) -> str:
        """Text again; `<eos>` becomes a line break."""
        tokens = [self.tokens[number] for number in numbers]
        if self.level == "char":
            return "".join(tokens)
        text = " ".join("\n" if token == EOS else token for token in tokens)
        # Spaces part words, not lines.
        return text.replace(" \n ", "\n").replace(" \n", "\n")

    def to_json(self) -> JsonObject:
        """Plain values."""
        return {"level": self.level, "tokens": list(self.tokens)}

    @classmethod
    def from_json(cls, data: JsonObject, where: str) -> Vocabulary:
        """The inverse of `to_json`. ValueError that names `where`."""
        tokens = data.get("tokens")
        if not isinstance(tokens, list) or not all(isinstance(token, str) for token in tokens):
            raise ValueError(f"{where} holds no vocabulary: 'tokens' must be a list of texts")
        try:
            return cls(tuple(tokens), data.get("level", "word"))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


def split_text(text: str, level: Level) -> list[str]:
    r"""Text as tokens: its characters, or words between white space with `<eos>` after every line.

    Lines end at `\n`, `\r\n` and `\r` and at nothing else; as a character each is a `\n`. The
    rule for words is that of the published corpora.
    """
    if level == "char":
        return list(with_plain_ends(text))
    tokens: list[str] = []
    for line in lines(text):
        tokens += line.split()
        tokens.append(EOS)
    return tokens


# ---- corpora -------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Corpus:
    """Three splits of one text as token numbers, int64 (N,); the vocabulary is that of all.

    Tokens that appear less often than `min_count` are its sign for unknown ones. `is_cut`: the
    splits are parts of one text.
    """

    name: str
    vocabulary: Vocabulary
    train: Tensor
    valid: Tensor
    test: Tensor
    min_count: int = 1
    is_cut: bool = False

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
        min_count: words that appear less often in the three splits become `<unk>`, and characters
            U+FFFD; 1 keeps all. None: 3 for the words of `pydoc`, 1 for any other text (the
            published corpora have replaced their rare words already).

    Raises:
        ValueError: another level, a count below 1.
    """

    source: str = EMBEDDED
    level: Level = "word"
    min_count: int | None = None

    def __post_init__(self) -> None:
        if self.level not in ("word", "char"):
            raise ValueError(f"level must be 'word' or 'char', not {self.level!r}")
        check_numbers(self)

    def located(self, folder: Path) -> TextConfig:
        """The text of the run in this folder, as it is found from here."""
        return replace(self, source=located_source(self.source, folder, (EMBEDDED,)))

    def load(self) -> Corpus:
        """Read the corpus."""
        return load_corpus(self.source, self.level, self.min_count)


def load_corpus(source: str | Path, level: Level = "word", min_count: int | None = None) -> Corpus:
    """A corpus by name or path; see `TextConfig`.

    ValueError, always one sentence: a file that is missing, empty, or no text (the byte is named),
    a folder without one of the splits, a hub set that cannot be had.
    """
    name = str(source)
    path = expanded(source)
    count = 1 if min_count is None else min_count
    if path.is_dir():
        return _corpus(name, _folder(path), level, count)
    if path.is_file():
        return _in_three(name, split_text(_read(path), level), level, count)
    if name == EMBEDDED:
        if min_count is None and level == "word":
            count = EMBEDDED_MIN_COUNT
        return _in_three(name, split_text(embedded_text(level), level), level, count)
    is_path = name.startswith((".", "/", "~"))
    if name.count("/") == 1 and not is_path:
        return _corpus(name, _hub(name), level, count)
    raise ValueError(f"there is no corpus {name!r}: expected {LAYOUTS}")


def embedded_text(level: Level) -> str:
    """The English text of Python's own help topics: about 450,000 characters.

    Every installation has them. At word level punctuation is parted from words, as the published
    corpora have it.
    """
    try:
        from pydoc_data.topics import topics
    except ImportError as error:
        raise ValueError(
            "this Python installation lacks its help texts (module pydoc_data): give a corpus, "
            "e.g. a text file"
        ) from error
    text = "\n".join(topics[name] for name in sorted(topics))
    if level == "char":
        return text
    parted = []
    for line in lines(text):
        words = re.findall(r"\w+|[^\w\s]+", line.lower())
        if words:
            parted.append(" ".join(words))
    return "\n".join(parted)


def _folder(folder: Path) -> dict[str, str]:
    missing = []
    for split in SPLITS:
        if not (folder / f"{split}.txt").is_file():
            missing.append(f"{split}.txt")
    if missing:
        raise ValueError(
            f"{folder} lacks {' and '.join(missing)}: a corpus folder has train.txt, valid.txt, "
            "test.txt"
        )
    return {split: _read(folder / f"{split}.txt") for split in SPLITS}


def _read(path: Path) -> str:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ValueError(f"{path} cannot be read: {error.strerror or error}") from error
    text = decoded(data, str(path))
    if not text.strip():
        raise ValueError(f"{path} is empty: a corpus needs text")
    return text


# How a split and the column of its lines may be named on the hub
HUB_SPLITS = {"train": ("train",), "valid": ("validation", "valid"), "test": ("test",)}
HUB_COLUMNS = ("text", "sentence", "content")


def _hub(name: str) -> dict[str, str]:
    # Imported here: `datasets` is of use to sets of the hub alone, and slow to import.
    extras.need("datasets", extra="text", what=f"the set {name!r} of the Hugging Face hub")
    from gradnas.data.hub import load_splits

    dataset, _, configuration = name.partition(":")
    splits = load_splits(
        dataset,
        configuration or None,
        instead="use a folder with train.txt, valid.txt and test.txt",
    )
    texts = {}
    for split, names in HUB_SPLITS.items():
        rows = next((splits[other] for other in names if other in splits), None)
        if rows is None:
            raise ValueError(f"the set {name!r} lacks a {split} split; it has {', '.join(splits)}")
        column = next((known for known in HUB_COLUMNS if known in rows.column_names), None)
        if column is None:
            raise ValueError(
                f"the set {name!r} has no column 'text', only {', '.join(rows.column_names)}"
            )
        texts[split] = _joined(rows[column], f"the {split} split of {name!r}")
    return texts


def _joined(rows: Iterable[object], where: str) -> str:
    """Rows of a hub split as one text; a row ends a line, whether it holds the line end or not."""
    parts = []
    for number, row in enumerate(rows, 1):
        if not isinstance(row, str):
            raise ValueError(f"{where} holds no text in row {number}, but {row!r:.40}")
        text = with_plain_ends(row)
        parts.append(text if text.endswith("\n") else f"{text}\n")
    return "".join(parts)


def _in_three(name: str, tokens: list[str], level: Level, min_count: int) -> Corpus:
    """A corpus of one run of tokens, cut in three."""
    train_share, valid_share = SHARES
    valid_from = int(len(tokens) * train_share)
    test_from = int(len(tokens) * (train_share + valid_share))
    splits = [tokens[:valid_from], tokens[valid_from:test_from], tokens[test_from:]]
    return replace(_build(name, splits, level, min_count), is_cut=True)


def _corpus(name: str, texts: Mapping[str, str], level: Level, min_count: int) -> Corpus:
    return _build(name, [split_text(texts[split], level) for split in SPLITS], level, min_count)


def _build(name: str, splits: Sequence[list[str]], level: Level, min_count: int) -> Corpus:
    """A corpus of the tokens of train, valid and test."""
    if min_count > 1:
        splits = _without_rare(splits, level, min_count)
    # All three splits: a perplexity over tokens that the model cannot name would be undefined.
    seen: dict[str, None] = {}
    for tokens in splits:
        seen.update(dict.fromkeys(tokens))
    vocabulary = Vocabulary(tuple(seen), level)
    train, valid, test = (vocabulary.numbers(tokens) for tokens in splits)
    return Corpus(name, vocabulary, train, valid, test, min_count)


def _without_rare(splits: Sequence[list[str]], level: Level, min_count: int) -> Sequence[list[str]]:
    """The splits with one sign for every token that appears less often than `min_count`."""
    unknown = UNKNOWN_SIGNS[level]
    counts: Counter[str] = Counter()
    for tokens in splits:
        counts.update(tokens)
    kept = {token for token, count in counts.items() if count >= min_count}
    kept.add(EOS)
    replaced = []
    for tokens in splits:
        replaced.append([token if token in kept else unknown for token in tokens])
    return replaced
