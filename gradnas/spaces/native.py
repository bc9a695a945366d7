"""Operations in C++: compiled at first use with the user's compiler and kept in the user's cache
folder.

Without a compiler the same operations run on torch; where there is one and it fails, a warning says
so, because the results of the two differ in their last bits. Set `GRADNAS_COMPILER=none` to use
torch operations everywhere, or to the name of a C++ compiler (default `g++`).
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor


def _machine() -> str:
    """What `-march=native` depends on: a home folder may be shared by different machines."""
    flags = ""
    if Path("/proc/cpuinfo").exists():
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        flags = next((line for line in lines if line.startswith(("flags", "Features"))), "")
    return f"{platform.system()} {platform.machine()} {flags}"


@functools.cache
def library(source: Path, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled `source` with `REAL` for one dtype, from the user's cache folder.

    None without a compiler, and, with a warning, where compiling or loading fails.
    """
    compiler = shutil.which(os.environ.get("GRADNAS_COMPILER", "g++"))
    if compiler is None:
        return None
    real = "float" if dtype is torch.float32 else "double"
    options = [
        "-std=c++17",
        "-O3",
        "-march=native",
        "-fopenmp",
        "-fPIC",
        "-shared",
        f"-DREAL={real}",
    ]
    if platform.machine() == "x86_64":
        options.append("-mprefer-vector-width=512")
    text = source.read_text(encoding="utf-8")
    key = hashlib.sha256("\n".join([text, *options, compiler, _machine()]).encode()).hexdigest()[
        :24
    ]
    folder = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "gradnas"
    target = folder / f"{source.stem}-{key}.so"
    try:
        if not target.exists():
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                built = Path(scratch) / "built.so"
                command = [compiler, *options, str(source), "-o", str(built)]
                subprocess.run(command, check=True, capture_output=True, timeout=600)
                os.replace(
                    built, target
                )  # another process may have been faster: both files are the same
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError) as error:
        told = getattr(error, "stderr", None)
        lines = told.decode(errors="replace").strip().splitlines() if told else [str(error)]
        warnings.warn(
            f"the C++ kernels of {source.name} could not be had ({lines[0] if lines else error}): torch operations run "
            "in their place, several times slower and with other last bits. GRADNAS_COMPILER=none does so without "
            "this warning",
            stacklevel=2,
        )
        return None


def differentiable(
    plain: Callable[..., Any], tensors: Sequence[Tensor], needs: Sequence[bool], grads: Any
) -> list:
    """The gradients of `plain(*tensors)` as a differentiable function; None where not needed."""
    with torch.enable_grad():
        # Aliases: an input may itself depend on another one, and that path is not this operation's
        # derivative.
        fresh = [t.view_as(t) for t in tensors]
        pairs = [
            (o, g)
            for o, g in zip(plain(*fresh), grads, strict=True)
            if o.requires_grad and g is not None
        ]
        outputs, heads = zip(*pairs, strict=True)
        wanted = [t for t, need in zip(fresh, needs, strict=True) if need]
        found = iter(
            torch.autograd.grad(outputs, wanted, heads, create_graph=True, allow_unused=True)
        )
    return [next(found) if need else None for need in needs]
