"""Operations in C++: compiled at first use with the user's compiler, kept in the user's cache.

Without a compiler, or where it fails, the same operations run on torch, and a warning says so once,
because they are slower and the results of the two differ in their last bits. Set
`GRADNAS_COMPILER=none` to use torch operations everywhere, or to the name of a C++ compiler
(default `g++`). What `GRADNAS_COMPILER_OPTIONS` holds is added to its options:
`-g -fsanitize=address,undefined`. A compiler that is named and is not there is an error, and no
reason for other last bits.

C++ gets addresses, and cannot ask what lies there. `has_memory` says whether there is something to
hand over at all, and `address` checks every tensor that is handed over; nothing else calls
`data_ptr` on a tensor that it did not make itself.
"""

from __future__ import annotations

import ctypes
import functools
import hashlib
import os
import platform
import re
import shlex
import shutil
import subprocess
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from gradnas.files import building_folder

DEFAULT_COMPILER = "g++"

_OUTCOMES: dict[tuple[str, torch.dtype], bool] = {}  # which kernels were had, of those asked for


def compiler() -> str | None:
    """Path of the C++ compiler; None without one, and where `GRADNAS_COMPILER` is "none".

    Raises:
        ValueError: `GRADNAS_COMPILER` names one that is not there.
    """
    named = os.environ.get("GRADNAS_COMPILER", "")
    if named == "none":
        return None
    found = shutil.which(named or DEFAULT_COMPILER)
    if found is None and named:
        raise ValueError(
            f"GRADNAS_COMPILER names {named!r}, but there is no such program: name one that is "
            "there, or none to do without"
        )
    return found


@functools.cache
def _version(path: str) -> str:
    """The first line of what a compiler says of itself; its path where it says nothing."""
    try:
        done = subprocess.run(
            [path, "--version"], capture_output=True, text=True, timeout=60, check=False
        )
    except (OSError, subprocess.SubprocessError, UnicodeDecodeError):
        return path
    lines = done.stdout.strip().splitlines()
    return lines[0] if lines else path


def compiler_words() -> str | None:
    """The compiler and what was added to its options, for the environment of a run.

    Raises:
        ValueError: as `compiler`.
    """
    path = compiler()
    if path is None:
        return None
    return " ".join([_version(path), *_more_options()])


def kernels_words() -> str | None:
    """What the operations with kernels run on in this process; None where there were none yet."""
    if not _OUTCOMES:
        return None
    return "C++" if all(_OUTCOMES.values()) else "torch"


@functools.cache
def library(source: Path, dtype: torch.dtype) -> ctypes.CDLL | None:
    """The compiled `source` with `REAL` for one dtype, from the user's cache folder.

    None, with a warning, without a compiler and where compiling or loading fails.

    Raises:
        ValueError: as `compiler`.
    """
    path = compiler()
    if path is None and os.environ.get("GRADNAS_COMPILER", "") != "none":
        _say_what_is_slower()
    loaded = None if path is None else _loaded(source, dtype, path)
    _OUTCOMES[source.name, dtype] = loaded is not None
    return loaded


@functools.cache
def _say_what_is_slower() -> None:
    warnings.warn(
        f"there is no C++ compiler ({DEFAULT_COMPILER}) here: on the CPU, convolutional and "
        "recurrent cells run on torch operations, several times slower and with other last bits. "
        "Install one (Debian and Ubuntu: apt-get install g++; conda: conda install gxx), or name "
        "another in GRADNAS_COMPILER; GRADNAS_COMPILER=none does without and without this warning",
        stacklevel=4,
    )


def _loaded(source: Path, dtype: torch.dtype, path: str) -> ctypes.CDLL | None:
    options = _options(dtype)
    try:
        stem = _stem(source, options, path)
        target = _whole(stem)
        if target is None:
            target = _compile(source, options, path, stem)
        return ctypes.CDLL(str(target))
    except (OSError, subprocess.SubprocessError, NoHome) as error:
        warnings.warn(
            f"the C++ kernels of {source.name} could not be had ({_reason(error)}): torch "
            "operations run in their place, several times slower and with other last bits. "
            "GRADNAS_COMPILER=none does so without this warning",
            stacklevel=3,
        )
        return None


def _options(dtype: torch.dtype) -> list[str]:
    """What the compiler is told beside the names of files."""
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
        # Left to itself, g++ stays with half of the vector that AVX-512 has.
        options.append("-mprefer-vector-width=512")
    return options + _more_options()


def _more_options() -> list[str]:
    written = os.environ.get("GRADNAS_COMPILER_OPTIONS", "")
    try:
        return shlex.split(written)
    except ValueError as error:
        raise ValueError(
            f"GRADNAS_COMPILER_OPTIONS cannot be parted into words: {error} in {written!r}"
        ) from error


def _stem(source: Path, options: list[str], path: str) -> Path:
    """Where compiled files are kept: a name for everything that their bytes depend on."""
    made_of = "\n".join([*_texts(source), *options, path, _machine()])
    key = hashlib.sha256(made_of.encode()).hexdigest()[:24]
    return _cache_folder() / "gradnas" / f"{source.stem}-{key}"


def _texts(source: Path) -> list[str]:
    """Of a file and of those that it includes by a path from its own folder."""
    text = source.read_text(encoding="utf-8")
    found = [text]
    for name in re.findall(r'^ *# *include *"(.+)"', text, re.MULTILINE):
        found += _texts(source.parent / name)
    return found


class NoHome(Exception):
    """There is no place of the user's own to keep files in."""


def _cache_folder() -> Path:
    """The user's cache folder, by the XDG base directory specification.

    Raises:
        NoHome: no home folder is known, as of a user that is in no list and without HOME.
    """
    named = os.environ.get("XDG_CACHE_HOME", "")
    if os.path.isabs(named):  # what is empty or relative counts as not set
        return Path(named)
    try:
        return Path.home() / ".cache"
    except RuntimeError as error:
        raise NoHome(
            "there is no home folder to keep them in: set HOME or XDG_CACHE_HOME"
        ) from error


def _machine() -> str:
    """What `-march=native` depends on: a home folder may be shared by different machines."""
    flags = ""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text().splitlines():
            if line.startswith(("flags", "Features")):  # of x86 and of ARM; all cores have the same
                flags = line
                break
    return f"{platform.system()} {platform.machine()} {flags}"


def _whole(stem: Path) -> Path | None:
    """The compiled file of this name that is what its name says, if there is one.

    The name ends with the digest of the bytes. A file that was cut, by a power failure for example,
    would end every process that loads it; it is removed.
    """
    for path in sorted(stem.parent.glob(f"{stem.name}-*.so")):
        if path.name == f"{stem.name}-{_digest(path)}.so":
            return path
        path.unlink(missing_ok=True)
    return None


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:24]


def _compile(source: Path, options: list[str], path: str, stem: Path) -> Path:
    """Compile, and keep the file under a name that ends with the digest of its bytes."""
    # For the user alone: what lies here is loaded and run.
    stem.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with building_folder(stem) as scratch:
        built = scratch / "built.so"
        command = [path, *options, str(source), "-o", str(built)]
        subprocess.run(command, check=True, capture_output=True, timeout=600)
        handle = os.open(built, os.O_RDWR)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
        # Another process may have been faster: both files are the same.
        target = stem.with_name(f"{stem.name}-{_digest(built)}.so")
        os.replace(built, target)
    return target


def _reason(error: Exception) -> str:
    """The first line of what the compiler said, or of the error."""
    told = getattr(error, "stderr", None)
    if not told:
        return str(error)
    lines = told.decode(errors="replace").strip().splitlines()
    return lines[0] if lines else str(error)


# ---- tensors for C++ -----------------------------------------------------------------------------


def is_transformed() -> bool:
    """Whether more than autograd's backward follows what is computed now.

    The transforms of `torch.func` (grad, jvp, vmap, ...) and forward derivatives: both follow
    torch's own operations alone.
    """
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def has_memory(*tensors: Tensor) -> bool:
    """Whether C++ can compute with these tensors: plain numbers in the memory of the CPU.

    False also where something besides autograd follows torch's operations, and would not see what
    C++ does: a compiler or tracer of torch programs, a transform, a mode that counts or replaces
    operations.
    """
    if torch.compiler.is_compiling() or is_transformed():
        return False
    if torch._C._get_tracing_state() is not None or torch._C._len_torch_dispatch_stack():
        return False
    wrappers = torch._C._functorch
    for t in tensors:
        # Subclasses and wrappers have no memory of their own: of a transform that has ended, and of
        # many gradients at once (`is_grads_batched`), which does not count as a transform.
        is_plain = type(t) is Tensor or type(t) is nn.Parameter
        if not is_plain or wrappers.is_functorch_wrapped_tensor(t):
            return False
        if wrappers.is_legacy_batchedtensor(t):
            return False
        if not t.is_cpu or t.layout is not torch.strided:
            return False
        # A tensor may stand for the negatives of what its memory holds, or for zeros without any.
        if t.is_neg() or t._is_zerotensor() or not t.numel():
            return False
    return True


def address(
    what: str,
    t: Tensor,
    dtype: torch.dtype,
    shape: tuple[int, ...],
    memory_format: torch.memory_format | None = torch.contiguous_format,
) -> int:
    """Where the numbers of a tensor lie, after a check that they are what C++ takes them for.

    Args:
        what: names the tensor in an error.
        memory_format: `torch.channels_last` for the maps of the stencils; None where C++ is told
            how the numbers lie.

    Raises:
        ValueError: another dtype, shape or device, or numbers that do not lie side by side.
    """
    has_form = t.dtype == dtype and t.shape == shape
    if not has_form or not t.is_cpu or t.layout is not torch.strided:
        raise ValueError(
            f"a kernel needs {what} as {dtype} of the shape {tuple(shape)} on the CPU, "
            f"not {t.dtype} of the shape {tuple(t.shape)} on {t.device}"
        )
    is_dense = memory_format is None or t.is_contiguous(memory_format=memory_format)
    if not is_dense or t.is_neg():
        raise ValueError(f"a kernel needs the numbers of {what} side by side ({memory_format})")
    place = t.data_ptr()
    if not place and t.numel():
        raise ValueError(f"a kernel needs the numbers of {what}, which has no memory")
    return place


# ---- derivatives of any order --------------------------------------------------------------------


def differentiable(
    plain: Callable[..., Sequence[Tensor]],
    tensors: Sequence[Tensor],
    needs: Sequence[bool],
    grads: Sequence[Tensor | None],
) -> list[Tensor | None]:
    """The gradients of `plain(*tensors)` as a differentiable function; None where not needed.

    Args:
        grads: those of the outputs of `plain`.
    """
    with torch.enable_grad():
        # Aliases: an input may itself depend on another one, and that path is not this operation's
        # derivative.
        aliases = [t.view_as(t) for t in tensors]
        outputs: list[Tensor] = []
        heads: list[Tensor] = []
        for output, grad in zip(plain(*aliases), grads, strict=True):
            if output.requires_grad and grad is not None:
                outputs.append(output)
                heads.append(grad)
        wanted = [alias for alias, need in zip(aliases, needs, strict=True) if need]
        found = torch.autograd.grad(outputs, wanted, heads, create_graph=True, allow_unused=True)
    remaining = iter(found)
    return [next(remaining) if need else None for need in needs]
