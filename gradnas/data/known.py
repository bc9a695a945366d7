"""What a set of images is known again by."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

from gradnas.config import Json
from gradnas.data.fingerprint import Fingerprint, digest, digest_of
from gradnas.data.seen import Seen
from gradnas.data.stream import Source

SAMPLE = 64  # images of a split that are looked at where reading all of them takes long


def sample_rows(size: int) -> range:
    """Rows of a source that stand for all of them: at most twice `SAMPLE`, evenly apart."""
    return range(0, size, max(1, size // SAMPLE))


def fingerprint_of(
    sources: Mapping[str, Source], seen: Mapping[str, Seen], class_names: Sequence[str]
) -> Fingerprint:
    """What a set of images is known again by.

    Args:
        sources: "training", "test", ... -> its images.
        seen: what was noticed of them; of all, or of the rows of `sample_rows` at least.
        class_names: by label.
    """
    entries: dict[str, Json] = {"classes": list(class_names)}
    for split, source in sources.items():
        noted = seen[split]
        counts = Counter(source.labels.tolist())
        by_class = {name: counts.get(label, 0) for label, name in enumerate(class_names)}
        entries[f"{split} images"] = len(source)
        entries[f"{split} images of each class"] = by_class
        entries[f"labels of the {split} images"] = digest_of(source.labels)
        # Bytes as they are stored, which are the same with any version of a decoder.
        sampled = noted.hashes_N[list(sample_rows(len(source)))]
        entries[f"contents of some {split} images"] = digest([sampled.tobytes()])
        if noted.all_noted:
            entries[f"contents of the {split} images"] = digest([noted.hashes_N.tobytes()])
        else:
            entries.update(source.about(split))
    return Fingerprint(entries)
