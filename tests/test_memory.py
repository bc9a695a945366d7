"""What cannot fit into memory is told before it is made; what fits is let through."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnas import memory
from gradnas.cli import main
from gradnas.memory import KeptOnMeta, SavedTensors, check_fits, freed_memory_kept, memory_of

CPU = torch.device("cpu")


def test_what_needs_more_than_there_is(monkeypatch):
    there = memory_of(CPU)
    assert there is not None and there > 2**28
    check_fits(there, CPU, "a step", "less")
    with pytest.raises(ValueError, match=r"^a step needs at least .* GiB of memory, and this mach"):
        check_fits(there + 1, CPU, "a step", "less")
    monkeypatch.setattr(memory, "memory_of", lambda device: None)
    check_fits(1e30, CPU, "a step", "less")  # a device that does not say


class Library:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, ...]] = []

    def mallopt(self, number: int, value: int) -> int:
        self.asked.append(("mallopt", str(number), str(value)))
        return 1

    def malloc_trim(self, pad: int) -> int:
        self.asked.append(("malloc_trim", str(pad)))
        return 1


def test_freed_memory_is_given_back_at_the_end_also_after_an_error(monkeypatch):
    library = Library()
    monkeypatch.setattr(memory, "_glibc", lambda: library)
    with pytest.raises(ValueError, match="stopped"), freed_memory_kept():
        kept = [("mallopt", "-3", str(2**30)), ("mallopt", "-1", "-1")]
        assert library.asked == kept
        raise ValueError("stopped")
    back = [("mallopt", "-3", str(2**25)), ("mallopt", "-1", str(2**26)), ("malloc_trim", "0")]
    assert library.asked == kept + back


def test_own_settings_of_the_c_library_stay(monkeypatch):
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_ARENA_MAX", "GLIBC_TUNABLES"):
        with monkeypatch.context() as patch:
            patch.setenv(name, "1")
            assert memory._glibc() is None
            with freed_memory_kept():  # and nothing else
                pass
    monkeypatch.setattr(memory.platform, "libc_ver", lambda: ("", ""))
    assert memory._glibc() is None


def test_a_pass_on_the_meta_device_keeps_what_a_real_one_does():
    def network() -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)
        )

    with torch.device("meta"):
        on_meta = network()
    kept = KeptOnMeta(on_meta)
    with kept:
        on_meta(torch.zeros(4, 3, 16, 16, device="meta"))
    real = network()
    with SavedTensors() as saved:
        out = real(torch.zeros(4, 3, 16, 16))
    of_weights = sum(p.untyped_storage().nbytes() for p in real.parameters())
    assert out.shape == (4, 4, 16, 16)
    assert saved.peak_bytes - of_weights <= kept.bytes <= saved.peak_bytes


@pytest.mark.parametrize(
    "options",
    [
        ("--image-size", "16384"),
        pytest.param(("--channels", "60000"), marks=pytest.mark.slow),
        pytest.param(("--hidden", "65536"), marks=pytest.mark.slow),
    ],
)
def test_a_search_that_cannot_fit_is_refused_before_there_is_a_folder(options, tmp_path, capsys):
    recipe = "text" if "--hidden" in options else "digits"
    arguments = ["search", recipe, *options, "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(arguments) == 2
    said = capsys.readouterr().err
    assert "GiB of memory, and this machine has" in said and said.count("gradnas: ") == 1
    assert not (tmp_path / "run").exists()
