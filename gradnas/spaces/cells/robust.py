"""The spaces S1 to S4 of Zela et al. (ICLR 2020, arXiv 1909.09656), as settings of `ConvCell`.

The operations of S1 are those of the table in the authors' code: on each edge the two that DARTS
wanted most there.
"""

from __future__ import annotations

from typing import Any

_SKIP = "skip_connect"
_SEP3 = "sep_conv_3x3"
_DIL3 = "dil_conv_3x3"
_DIL5 = "dil_conv_5x5"
_MAX = "max_pool_3x3"
_AVG = "avg_pool_3x3"

_S1_NORMAL = (
    (_SKIP, _DIL3),
    (_SKIP, _DIL5),
    (_SKIP, _DIL5),
    (_SKIP, _SEP3),
    (_SKIP, _DIL3),
    (_MAX, _SKIP),
    (_SKIP, _SEP3),
    (_SKIP, _SEP3),
    (_SKIP, _DIL3),
    (_SKIP, _SEP3),
    (_MAX, _SKIP),
    (_SKIP, _DIL3),
    (_DIL3, _DIL5),
    (_DIL3, _DIL5),
)
_S1_REDUCE = (
    (_MAX, _AVG),
    (_MAX, _DIL3),
    (_MAX, _AVG),
    (_MAX, _AVG),
    (_SKIP, _DIL5),
    (_MAX, _AVG),
    (_MAX, _SEP3),
    (_SKIP, _DIL3),
    (_SKIP, _DIL5),
    (_MAX, _AVG),
    (_MAX, _AVG),
    (_SKIP, _DIL5),
    (_SKIP, _DIL5),
    (_SKIP, _DIL5),
)

ROBUST_SPACES: dict[str, dict[str, Any]] = {
    "S1": {"edge_operations": {"normal": _S1_NORMAL, "reduce": _S1_REDUCE}},
    "S2": {"operations": (_SKIP, _SEP3)},
    "S3": {"operations": ("none", _SKIP, _SEP3)},
    "S4": {"operations": ("noise", _SEP3)},
}
