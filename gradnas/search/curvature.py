"""The curvature of a loss in the alphas: the ends of the spectrum of its Hessian.

Legend: n alphas in all.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from gradnas.gradients.base import Loss, grad, leaves, pulled_back, same_randomness

ROUNDING = 1e-12  # of a vector's length: what is left of it is noise


@dataclass(frozen=True)
class Curvature:
    """What products with a Hessian have told of its eigenvalues.

    Attributes:
        largest, smallest: eigenvalues, exact where there were as many products as alphas. Of fewer
            the largest is estimated from below, the smallest from above.
        residual: `||H v - largest v||` of a unit vector v. Some eigenvalue lies within so much of
            `largest`; where it is the largest one, the error is of the order of the square of this.
        products: that were made.
    """

    largest: float
    smallest: float
    residual: float
    products: int

    @property
    def dominant(self) -> float:
        """The one of the largest size, with its sign: where power iteration leads."""
        return self.largest if self.largest >= -self.smallest else self.smallest

    @property
    def is_settled(self) -> bool:
        """Whether the residual is small beside the eigenvalue: then that is known to about 4%."""
        return self.residual <= 0.2 * abs(self.largest)


def curvature(
    loss: Loss,
    params: Mapping[str, Tensor],
    alphas: Mapping[str, Tensor],
    products: int,
    start: Tensor,
) -> tuple[Curvature, Tensor]:
    """The largest and the smallest eigenvalue of `d2 loss / d alpha2` at these weights.

    By power iteration on exact products of the Hessian with vectors, of which all are kept: the
    eigenvalues are those of the Hessian within their span (Lanczos' method), which are nearer than
    the last vector alone. One forward pass, and two passes backward for each product.

    Args:
        products: at most, at least 1; no more than n are made.
        start: where to begin, `(n,)`; not zero.

    Returns:
        What was found, and the vector `(n,)` from which to go on, float64 on the CPU: one step of
        power iteration beyond the best one in the span. It is zero where the Hessian is.

    Raises:
        NoSecondDerivative: a function in the loss has none.
        RuntimeError: torch has none.
        ValueError: the loss does not depend on the alphas.
        FloatingPointError: the loss or a product is NaN or infinite.
    """
    a = leaves(alphas)
    inputs = list(a.values())
    with same_randomness([*params.values(), *alphas.values()]):
        value = loss(leaves(params, requires_grad=False), a)
        if not value.requires_grad:
            raise ValueError("the validation loss has no gradient in the alphas")
        slope = grad(value, inputs, create_graph=True)
        del value
        basis: list[Tensor] = []
        images: list[Tensor] = []
        v_n = start.double().cpu()
        size = float(v_n.norm())
        assert size > 0, "a direction to begin with"
        for _ in range(min(products, v_n.numel())):
            v_n = v_n / size
            basis.append(v_n)
            image_n = _flat(pulled_back(slope, inputs, _parts(v_n, inputs)))
            if not torch.isfinite(image_n).all():
                raise FloatingPointError("a product with the Hessian is not finite")
            images.append(image_n)
            v_n = _without(_without(image_n, basis), basis)  # twice, against rounding
            size = float(v_n.norm())
            if size <= ROUNDING * float(image_n.norm()):
                break  # the span is closed: what is in it is exact
    return _ends(torch.stack(basis), torch.stack(images))


def _ends(basis_mn: Tensor, images_mn: Tensor) -> tuple[Curvature, Tensor]:
    """Both ends of the spectrum within a span, from an orthonormal basis and its images."""
    within_mm = basis_mn @ images_mn.T
    values_m, vectors_mm = torch.linalg.eigh((within_mm + within_mm.T) / 2)
    coordinates_m = vectors_mm[:, -1]
    vector_n = coordinates_m @ basis_mn
    largest = float(values_m[-1])
    residual = float((coordinates_m @ images_mn - largest * vector_n).norm())
    smallest = float(values_m[0])
    # Shifted, so that it leads to the largest one and not to that of the largest size.
    following_n = coordinates_m @ images_mn + max(0.0, -smallest) * vector_n
    return Curvature(largest, smallest, residual, len(basis_mn)), following_n


def _without(vector_n: Tensor, basis: Sequence[Tensor]) -> Tensor:
    """What is left of a vector beside an orthonormal basis."""
    basis_mn = torch.stack(list(basis))
    return vector_n - (basis_mn @ vector_n) @ basis_mn


def _flat(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat([tensor.detach().reshape(-1).double().cpu() for tensor in tensors])


def _parts(vector_n: Tensor, like: Sequence[Tensor]) -> list[Tensor]:
    """A vector as tensors of these shapes, types and devices."""
    sizes = [tensor.numel() for tensor in like]
    pieces = vector_n.split(sizes)
    return [piece.view(tensor.shape).to(tensor) for piece, tensor in zip(pieces, like, strict=True)]
