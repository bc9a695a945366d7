"""Batches that are made beside the step: the same ones, errors in their places, no thread left."""

import io
import threading

import pytest
import torch
from PIL import Image
from torch import Tensor

from gradnas.data import Augment, MemorySplit, StreamSplit, ahead, memory, stream
from gradnas.data.ahead import has_free_core, one_ahead
from gradnas.data.augment import PLAIN
from gradnas.data.base import Split
from gradnas.data.stream import BadImage, Source

CPU = torch.device("cpu")
AUGMENT = Augment(crop_padding=2, flip=True, cutout=3)


def in_memory() -> MemorySplit:
    generator = torch.Generator().manual_seed(0)
    pixels_NCHW = torch.randint(256, (23, 3, 8, 8), generator=generator, dtype=torch.uint8)
    return MemorySplit(pixels_NCHW, torch.arange(23) % 3, (0.5,) * 3, (0.25,) * 3)


class Encoded(Source):
    """The images of `in_memory` as files; the last one is damaged."""

    def __init__(self) -> None:
        split = in_memory()
        self.labels = split.labels
        self.images_NHWC = split.images_NCHW.permute(0, 2, 3, 1).numpy()

    def read(self, index: int) -> bytes:
        if index == len(self) - 1:
            return b"no image"
        file = io.BytesIO()
        Image.fromarray(self.images_NHWC[index]).save(file, "PNG")
        return file.getvalue()

    def where(self, index: int) -> str:
        return f"image {index}"


def streamed() -> StreamSplit:
    return StreamSplit(Encoded(), 8, (0.5,) * 3, (0.25,) * 3)


def batches_of(split: Split, monkeypatch, beside: bool, start: int = 0) -> list[tuple[Tensor, ...]]:
    for module in (memory, stream):
        monkeypatch.setattr(module, "has_free_core", lambda device: beside)
    found = split.batches(4, augment=AUGMENT, shuffle=True, seed=5)
    return list(found.epoch(3, start))


@pytest.mark.parametrize("start", [0, 2, 6])
@pytest.mark.parametrize("split", [in_memory(), streamed().subset(range(22))])
def test_batches_are_the_same_to_the_bit(split, start, monkeypatch):
    asked = batches_of(split, monkeypatch, beside=False, start=start)
    beside = batches_of(split, monkeypatch, beside=True, start=start)
    assert len(asked) == len(beside) == 6 - start
    for one, other in zip(asked, beside, strict=True):
        assert torch.equal(one[0], other[0]) and torch.equal(one[1], other[1])
        assert one[0].stride() == other[0].stride()


def test_the_next_one_is_made_while_one_is_worked_on():
    made = [threading.Event() for _ in range(3)]
    threads = set()

    def items():
        for number, event in enumerate(made):
            threads.add(threading.get_ident())
            event.set()
            yield number

    coming = one_ahead(items())
    assert not made[0].is_set()  # nothing before the first is asked for
    assert next(coming) == 0
    assert made[1].wait(60)
    assert list(coming) == [1, 2]
    assert threading.get_ident() not in threads and len(threads) == 1


def test_an_error_comes_where_its_batch_would(monkeypatch):
    monkeypatch.setattr(stream, "has_free_core", lambda device: True)
    found = streamed().batches(8, augment=PLAIN, shuffle=False).epoch(0)
    assert len(next(found)[1]) == 8
    assert len(next(found)[1]) == 8
    with pytest.raises(BadImage, match="image 22"):
        next(found)


@pytest.mark.parametrize("taken", [0, 1, 3])
def test_nothing_is_left_of_what_is_left_early(taken):
    """Neither a thread nor an open generator; and torch has as many threads as before."""
    before = threading.active_count()
    closed = []

    def items():
        try:
            yield from range(5)
        finally:
            closed.append(True)

    coming = one_ahead(items())
    for number in range(taken):
        assert next(coming) == number
    coming.close()
    assert threading.active_count() == before
    assert closed == ([True] if taken else [])  # what was never begun has nothing to close
    seen = []
    later = threading.Thread(target=lambda: seen.append(torch.get_num_threads()))
    later.start()
    later.join()
    assert seen == [torch.get_num_threads()]


def test_a_core_is_free_where_torch_leaves_one(monkeypatch):
    threads = torch.get_num_threads()
    for cores, on_cpu in ((threads, False), (threads + 1, True)):
        monkeypatch.setattr(ahead, "num_cores", lambda cores=cores: cores)
        assert has_free_core(CPU) is on_cpu
    # Of another device a single thread asks; two processes have two.
    monkeypatch.setattr(ahead, "num_cores", lambda: 2)
    assert has_free_core(torch.device("cuda"))
    monkeypatch.setattr(ahead.distributed, "world", lambda: 2)
    assert not has_free_core(torch.device("cuda"))
