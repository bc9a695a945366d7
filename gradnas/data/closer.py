"""A closer look at images that are decoded as they are needed, for who asks what is wrong."""

from __future__ import annotations

from gradnas.data.base import ImageData
from gradnas.data.image_set import ImageSet
from gradnas.data.seen import Seen
from gradnas.data.stream import BadImage, StreamSplit, look_at
from gradnas.data.suspicious import warnings_of

MOST_DECODED = 2000  # images of a split


def closer_look(data: ImageData) -> list[str]:
    """What looks wrong in streamed images, from up to `MOST_DECODED` of each split.

    Images that memory holds were all looked at when they were read. Images that cannot be decoded
    are named too: a run would stop when their turn comes.
    """
    splits = {"training": data.train, "validation": data.validation, "test": data.test}
    sources = {}
    seen = {}
    broken = []
    how = "crop"
    for name, split in splits.items():
        if not isinstance(split, StreamSplit):
            continue
        sources[name] = split.source
        how = split.how
        seen[name] = Seen(len(split))
        step = max(1, -(-len(split) // MOST_DECODED))
        for index in range(0, len(split), step):
            try:
                look_at(split.source, index, seen[name])
            except BadImage as error:
                broken.append(str(error))
    if not sources:
        return []
    image_set = ImageSet(
        data.name,
        data.class_names,
        sources["training"],
        sources.get("test"),
        looked_for="",
        sizes_must_agree=False,
        validation=sources.get("validation"),
    )
    found = warnings_of(image_set, seen, data.image_size, how)
    known = set(data.found.warnings)
    return [*broken, *(sentence for sentence in found if sentence not in known)]
