"""What cannot fit into memory is told before it is made; what fits is let through."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from gradnas import memory
from gradnas.cli import main
from gradnas.memory import KeptOnMeta, SavedTensors, check_fits, memory_of

CPU = torch.device("cpu")


def test_what_needs_more_than_there_is(monkeypatch):
    there = memory_of(CPU)
    assert there is not None and there > 2**28
    check_fits(there, CPU, "a step", "less")
    with pytest.raises(ValueError, match=r"^a step needs at least .* GiB of memory, and this mach"):
        check_fits(there + 1, CPU, "a step", "less")
    monkeypatch.setattr(memory, "memory_of", lambda device: None)
    check_fits(1e30, CPU, "a step", "less")  # a device that does not say


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
