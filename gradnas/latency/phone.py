"""Latency tables of phones, in the form that ProxylessNAS released.

A flat mapping `key -> {count, mean, var}` in milliseconds, as JSON or as YAML text. The keys name
an operation by the sizes of its maps: `Conv-input:224x224x3-output:112x112x32`.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from pathlib import Path

from gradnas.config import Json, did_you_mean, read_text
from gradnas.latency.entry import Entry

MOBILE_KINDS = ("Conv", "Conv_1", "Logits", "expanded_conv")
EXPANDED_CONV = "expanded_conv"  # the kind whose keys have settings too
STATISTICS = ("count", "mean", "var")  # of an entry
LARGEST = 1e15  # of a number in a table: no count and no time is larger

_KEY = re.compile(
    r"(?P<kind>Conv|Conv_1|Logits|expanded_conv)"
    r"-input:(?P<input>[0-9]+x[0-9]+x[0-9]+)-output:(?P<output>[0-9x]+)"
    r"(?:-expand:(?P<expand>[0-9]+)-kernel:(?P<kernel>[0-9]+)"
    r"-stride:(?P<stride>[0-9]+)-idskip:(?P<idskip>[01]))?"
)


def mobile_key(
    kind: str,
    size_in: tuple[int, int, int],
    size_out: tuple[int, int, int] | int,
    expand: int | None = None,
    kernel: int | None = None,
    stride: int | None = None,
    idskip: bool | None = None,
) -> str:
    """A key of the phone tables.

    `expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:3-stride:1-idskip:1`

    Args:
        size_in, size_out: (height, width, channels); the output of `Logits` is a number of classes.
        expand, kernel, stride, idskip: of an `expanded_conv`.

    Raises:
        ValueError: another kind, or an `expanded_conv` that lacks a setting.
    """
    if kind not in MOBILE_KINDS:
        raise ValueError(
            f"unknown kind {kind!r}{did_you_mean(kind, MOBILE_KINDS)}; the kinds are {MOBILE_KINDS}"
        )
    given = "x".join(map(str, size_in))
    written = str(size_out) if isinstance(size_out, int) else "x".join(map(str, size_out))
    key = f"{kind}-input:{given}-output:{written}"
    if kind != EXPANDED_CONV:
        return key
    if expand is None or kernel is None or stride is None or idskip is None:
        raise ValueError("an expanded_conv has expand, kernel, stride and idskip")
    return f"{key}-expand:{expand}-kernel:{kernel}-stride:{stride}-idskip:{int(idskip)}"


def is_mobile_key(key: str) -> bool:
    """Whether this is a key of the phone tables."""
    return _parts(key) is not None


def _parts(key: str) -> dict[str, str] | None:
    """The named parts of a key; None for a key of another grammar."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    has_settings = match["expand"] is not None
    if has_settings != (match["kind"] == EXPANDED_CONV):
        return None
    return {name: text for name, text in match.groupdict().items() if text is not None}


def mobile_features(key: str) -> dict[str, float]:
    """What a predictor may know about a key. ValueError for a key of another grammar."""
    parts = _parts(key)
    if parts is None:
        raise ValueError(f"{key!r} is no key of a phone table (TYPE-input:HxWxC-output:HxWxC...)")
    height, width, channels = (int(n) for n in parts["input"].split("x"))
    output = [int(n) for n in parts["output"].split("x")]
    expand = int(parts.get("expand", 1))
    features = {f"is_{kind}": float(parts["kind"] == kind) for kind in MOBILE_KINDS}
    features |= {
        "inputs": height * width * channels,
        "outputs": math.prod(output),
        "channels_in": channels,
        "channels_out": output[-1],
        "kernel": int(parts.get("kernel", 1)),
        "stride": int(parts.get("stride", 1)),
        "expansion": expand,
        "skip": int(parts.get("idskip", 0)),
        # Most of the work is on the maps between the two pointwise convolutions.
        "widened_inputs": height * width * channels * expand,
    }
    return features


def mobile_entries(data: Mapping[str, Json], where: str) -> dict[str, Entry]:
    """The entries of a table that was read. ValueError, with the place, for another content."""
    entries = {}
    for key, value in data.items():
        if not is_mobile_key(key):
            raise ValueError(
                f"{where} is neither a latency table of gradnas nor one of a phone: "
                f"the key {key!r} is not of the form TYPE-input:HxWxC-output:HxWxC"
            )
        if not _has_statistics(value):
            raise ValueError(f"{where}: {key!r} needs the numbers count, mean and var")
        # So written that it refuses NaN too.
        if not value["var"] >= 0:
            raise ValueError(f"{where}: {key!r}: var must be at least 0, not {value['var']}")
        for name in STATISTICS:
            # So written that it refuses NaN too.
            if not abs(value[name]) <= LARGEST:
                raise ValueError(f"{where}: {key!r}: {name} must be a finite number")
        try:
            entries[key] = Entry(
                ms=float(value["mean"]),
                spread_ms=math.sqrt(value["var"]),
                count=int(value["count"]),
                features=mobile_features(key),
            )
        except ValueError as error:
            raise ValueError(f"{where}: {key!r}: {error}") from error
    if not entries:
        raise ValueError(f"{where} holds no latencies")
    return entries


def _has_statistics(value: object) -> bool:
    if not isinstance(value, Mapping):
        return False
    for name in STATISTICS:
        number = value.get(name)
        # True and False are ints for Python, and no numbers here.
        if isinstance(number, bool) or not isinstance(number, (int, float)):
            return False
    return True


# ---- YAML ----------------------------------------------------------------------------------------

_YAML_KEY = re.compile(r"(?P<quote>['\"]?)(?P<key>[A-Za-z_0-9:x-]+)(?P=quote):\s*(?P<rest>.*)")
_YAML_FIELD = re.compile(r"\s+(?P<name>[a-z_]+):\s*(?P<number>[-+.0-9eE]+)\s*")


def read_mobile_yaml(path: Path) -> dict[str, dict[str, float]]:
    """The one form of YAML that phone tables have: keys with numbers under them.

    The numbers are indented or in braces. Nothing else of YAML is understood, so that a file can do
    nothing but hold numbers.

    Raises:
        ValueError: a file that cannot be read, or another form; the sentence names the line.
    """
    lines = read_text(path).splitlines()
    table: dict[str, dict[str, float]] = {}
    current: dict[str, float] | None = None  # the numbers of the key that was read last
    for number, line in enumerate(lines, 1):
        place = f"{path}, line {number}"
        text = line.rstrip()
        is_comment = text.lstrip().startswith("#")
        if not text or is_comment or text in ("---", "...", "{}"):
            continue
        inside = _YAML_FIELD.fullmatch(text)
        if inside is not None and current is not None:
            current[inside["name"]] = _number(inside["number"], place)
            continue
        head = _YAML_KEY.fullmatch(text)
        if head is None:
            raise ValueError(
                f"{place}: a phone table has lines 'KEY:' and, indented, 'name: number', "
                f"not {text!r}"
            )
        if head["key"] in table:
            raise ValueError(f"{place}: the key {head['key']!r} appears twice")
        current = {}
        table[head["key"]] = current
        if head["rest"]:
            current.update(_in_braces(head["rest"], place))
    return table


def _in_braces(text: str, place: str) -> dict[str, float]:
    """The numbers of `{count: 9, mean: 0.5, var: 0.01}`."""
    braces = re.fullmatch(r"\{(.*)\}", text)
    parts = [] if braces is None else braces[1].split(",")
    matches = [_YAML_FIELD.fullmatch(f" {part.strip()}") for part in parts]
    if not matches or None in matches:
        raise ValueError(f"{place}: expected {{name: number, ...}} after the key, not {text!r}")
    numbers = {}
    for match in matches:
        assert match is not None
        numbers[match["name"]] = _number(match["number"], place)
    return numbers


def _number(text: str, place: str) -> float:
    is_whole = re.fullmatch(r"-?[0-9]+", text) is not None
    try:
        return json.loads(text) if is_whole else float(text)
    except ValueError:
        raise ValueError(f"{place}: {text!r} is not a number") from None
