"""Networks of one's own in files: what of them can be compared."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gradnas.architectures.choices import Choices
from gradnas.export.called import write_called
from gradnas.modules.call import Call


class Noisy(nn.Module):
    """Draws in evaluation mode too, as a variational autoencoder may."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        z = self.mean(x)
        return z + torch.randn_like(z)


@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".pt2", ".onnx"])
def test_a_network_that_draws_numbers(suffix, tmp_path):
    if suffix == ".onnx":
        pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    network = Noisy().eval()
    call = Call(torch.ones(2, 3))
    path = tmp_path / f"m{suffix}"
    settings = {"architecture": Choices({"a": "b"}), "facts": {}}
    if suffix == ".onnx":
        with pytest.raises(ValueError, match="draws random numbers in evaluation mode too"):
            write_called(network, path, call, None, [call], **settings)
    else:
        written = write_called(network, path, call, None, [call], **settings)
        assert written.difference == 0.0
