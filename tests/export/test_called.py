"""Networks of one's own in files: what of them can be compared."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence, pack_sequence

from gradnas.architectures.choices import Choices
from gradnas.export.called import Exported, write_called
from gradnas.modules.call import Call

SETTINGS = {"architecture": Choices({"a": "b"}), "facts": {}}


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
    if suffix == ".onnx":
        with pytest.raises(ValueError, match="draws random numbers in evaluation mode too"):
            write_called(network, path, call, None, [call], **SETTINGS)
    else:
        written = write_called(network, path, call, None, [call], **SETTINGS)
        assert written.difference == 0.0


class OfLists(nn.Module):
    def forward(self, images: list[Tensor]) -> Tensor:
        return torch.stack(images).mean((1, 2))


class OfAConstant(nn.Module):
    """Takes the number of examples for a number of Python."""

    def forward(self, x: Tensor) -> Tensor:
        return x.new_zeros(len(x), 2) + x[:, :2]


def written(network: nn.Module, one: Call, other: Call, path: Path) -> Exported:
    return write_called(network.eval(), path, one, other, [one, other], **SETTINGS)


@pytest.mark.slow
def test_why_a_file_takes_batches_of_one_size(tmp_path):
    path = tmp_path / "m.pt2"
    lists = [Call([torch.ones(4, 3)] * number) for number in (2, 3)]
    own = written(OfLists(), *lists, path)
    assert own.num_compared == 1 and own.difference == 0.0
    assert own.fixed_because == "a batch of another size has another number of tensors in its lists"
    own = written(OfAConstant(), Call(torch.ones(2, 3)), Call(torch.ones(3, 3)), path)
    assert "takes the number of examples for a constant, as len(x) does" in own.fixed_because
    own = written(nn.Linear(3, 1), Call(torch.ones(1, 3)), Call(torch.ones(1, 3)), path)
    assert not own.any_batch and "of the same shapes" in own.fixed_because


@pytest.mark.slow
def test_what_torch_cannot_export_is_refused_with_its_reason_and_no_more(tmp_path, capfd):
    class OfPacked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.cell = nn.GRU(2, 3)

        def forward(self, packed: PackedSequence) -> Tensor:
            return self.cell(packed)[1]

    calls = []
    for number in (2, 3):
        sequences = [torch.ones(1 + n, 2) for n in range(number)]
        calls.append(Call(pack_sequence(sequences, enforce_sorted=False)))
    with pytest.raises(ValueError, match="torch cannot export a OfPacked"):
        written(OfPacked(), *calls, tmp_path / "m.pt2")
    assert "def forward" not in capfd.readouterr().err


def test_a_call_in_words_tells_shapes_in_containers_too():
    x = torch.ones(2, 3)
    call = Call([x, x], {"a": x, "n": 1}, masks=(x, None), many=[x] * 6)
    shape = "tensor of shape (2, 3)"
    assert repr(call) == (
        f"Call([{shape}, {shape}], dict(a: {shape}, n: 1), masks=({shape}, None), "
        f"many=[{shape}, {shape}, {shape}, {shape}, 2 more])"
    )
