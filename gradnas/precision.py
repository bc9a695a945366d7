"""Number formats of a run, set deliberately.

Torch's own defaults differ from place to place: TF32 in convolutions, not in products.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from contextvars import ContextVar
from typing import Any, get_args

import torch

from gradnas.settings.formats import Precision

# Formats with too few digits to hold a small change of a weight, or a long sum.
HALF = (torch.float16, torch.bfloat16)


def check_precision(precision: str, device: torch.device) -> None:
    """ValueError for an unknown format, or one that the device does not have."""
    if precision not in get_args(Precision):
        raise ValueError(f"precision must be 'fp32', 'tf32' or 'bf16', not {precision!r}")
    if precision == "tf32" and device.type != "cuda":
        raise ValueError(
            f"precision='tf32' is a format of CUDA devices; on {device.type} use 'fp32'"
        )


@contextmanager
def cuda_products(precision: str) -> Iterator[None]:
    """Within: whether CUDA's float32 products and convolutions use TF32.

    It keeps 10 bits of the fraction instead of 23. `"fp32"` forbids it in both, `"tf32"` allows it
    in both; `"bf16"` allows it in what autocast leaves in float32.
    """
    backends: Any = torch.backends
    settings = (backends.cuda.matmul, backends.cudnn.conv)
    before = [setting.fp32_precision for setting in settings]
    try:
        for setting in settings:
            setting.fp32_precision = "ieee" if precision == "fp32" else "tf32"
        yield
    finally:
        for setting, value in zip(settings, before, strict=True):
            setting.fp32_precision = value


_full: ContextVar[bool] = ContextVar("gradnas_full_precision", default=False)


@contextmanager
def full_precision() -> Iterator[None]:
    """Within: `autocast` casts nothing."""
    token = _full.set(True)
    try:
        yield
    finally:
        _full.reset(token)


def precision_notes(precision: str, device: torch.device) -> list[str]:
    """What is to be said before the first step: where bf16 is slower than float32."""
    if precision != "bf16" or device.type != "cpu" or multiplies_bf16() is not False:
        return []
    return [
        "this processor has no products in bf16 (neither AVX-512 BF16 nor AMX): precision='bf16' "
        "rounds as it would elsewhere, and is slower here than 'fp32'"
    ]


def multiplies_bf16() -> bool | None:
    """Whether this CPU has products in bf16; None where torch does not say."""
    capabilities = getattr(torch.cpu, "get_capabilities", dict)()
    known = [capabilities[name] for name in _BF16 if name in capabilities]
    return any(known) if known else None


_BF16 = ("avx512_bf16", "amx_bf16", "bf16", "arm_bf16", "sve_bf16")


def autocast(precision: str, device: torch.device) -> AbstractContextManager[object]:
    """Autocast to bf16 where asked for; for forward passes and losses."""
    casts = precision == "bf16" and not _full.get()
    if not casts and not torch.is_autocast_enabled(device.type):
        return nullcontext()  # nothing casts, and nothing has to be kept from casting
    return torch.autocast(device.type, dtype=torch.bfloat16, enabled=casts)
