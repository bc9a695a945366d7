"""Tables of latencies: measured here, or brought along for another device.

A table is plain data. gradnas writes JSON; tables in the form that ProxylessNAS released for
phones, a flat mapping `key -> {count, mean, var}` in milliseconds as JSON or as YAML text, are read
too.
"""

from __future__ import annotations

import json
import math
import platform
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

import torch

from gradnas.config import build, did_you_mean, read_object
from gradnas.latency.predictor import Predictor
from gradnas.runs import write_json

FORMAT, VERSION = "gradnas-latency", 1
MOBILE_KINDS = ("Conv", "Conv_1", "Logits", "expanded_conv")


@dataclass(frozen=True)
class Device:
    """Where latencies hold: kind (`cpu`, `cuda`, ...), model name, CPU threads (None where they do
    not matter)."""

    kind: str
    name: str
    threads: int | None = None

    @staticmethod
    def here(device: torch.device) -> Device:
        """The device that this process would measure on."""
        if device.type == "cuda":
            return Device("cuda", torch.cuda.get_device_name(device))
        name = _cpu_name() if device.type == "cpu" else platform.machine()
        return Device(device.type, name, torch.get_num_threads())

    def __str__(self) -> str:
        if self.threads is None:
            return f"{self.name} ({self.kind})"
        return f"{self.name} ({self.kind}, {self.threads} thread{'s' if self.threads > 1 else ''})"


@dataclass(frozen=True)
class Entry:
    """What was measured of one (operation, input shape).

    Attributes:
        ms: median time of one call, in milliseconds (the mean, in tables of the released form).
        spread_ms: interquartile range of the calls (the standard deviation, in tables of the
            released form).
        count: calls behind it.
        label: where the operation was met first.
        macs, params: multiply-adds of the call (of the whole batch) and parameters, if known.
        features: what a predictor is trained on.
    """

    ms: float
    spread_ms: float
    count: int
    label: str = ""
    macs: int | None = None
    params: int | None = None
    features: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("ms", "spread_ms"):
            value = getattr(self, name)
            if not math.isfinite(value) or value < 0:
                raise ValueError(f"{name} must be a number of at least 0, not {value}")


@dataclass(frozen=True)
class Found:
    """A latency out of a table, and whether it was measured or predicted."""

    ms: float
    predicted: bool


@dataclass(frozen=True)
class LatencyTable:
    """Milliseconds per (operation, input shape) on one device.

    Attributes:
        entries: by key (see `Unit.key` in survey.py, or the keys of the released phone tables).
        device: None where the file does not say.
        settings: how it was measured: batch size, warm-up, repeats, clock, image size, ...
        versions: of torch, Python, gradnas.
        predictor: fitted on the entries, for keys that the table lacks; None: a missing key is an
            error.
    """

    entries: Mapping[str, Entry]
    device: Device | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    predictor: Predictor | None = None

    @property
    def is_mobile(self) -> bool:
        """Whether the keys are those of the released phone tables."""
        return bool(self.entries) and all(_mobile_parts(key) is not None for key in self.entries)

    def look_up(
        self, key: str, features: Mapping[str, float] | None = None, label: str = ""
    ) -> Found:
        """The latency of a key: measured, or predicted from `features` where the table has a
        predictor.

        Args:
            label: what the key stands for, in an error.

        Raises:
            ValueError: the table lacks the key and cannot predict it.
        """
        entry = self.entries.get(key)
        if entry is not None:
            return Found(entry.ms, predicted=False)
        if self.predictor is not None and features:
            return Found(self.predictor.predict(features), predicted=True)
        raise ValueError(self._missing(key, label))

    def _missing(self, key: str, label: str) -> str:
        kind = key.partition("-")[0]
        digest = key.rpartition("-id:")[2]
        same = [
            other
            for other in self.entries
            if digest and other.startswith(f"{kind}-") and "-id:" in other
        ]
        outputs = [k for k in same if _without_batch(k) == _without_batch(key)]
        if outputs and "-id:" in key:
            other = outputs[0].partition("-")[2].partition("-output")[0]
            hint = f"; it has {kind} of {other}: is the batch size the one it was measured with?"
        else:
            hint = did_you_mean(key, self.entries)
        advice = "measure it (gradnas latency measure)"
        if self.predictor is None:
            advice += ", or fit a predictor on the table (gradnas latency fit)"
        what = f" for {label}" if label else ""
        return f"the latency table has no entry{what}: {key!r}{hint}; {advice}"

    # ---- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write JSON, atomically."""
        entries = {
            key: {k: v for k, v in asdict(e).items() if v not in (None, "")}
            for key, e in self.entries.items()
        }
        value: dict[str, Any] = {"format": FORMAT, "version": VERSION}
        if self.device is not None:
            value["device"] = asdict(self.device)
        value |= {
            "settings": dict(self.settings),
            "versions": dict(self.versions),
            "entries": entries,
        }
        if self.predictor is not None:
            value["predictor"] = self.predictor.to_json()
        write_json(Path(path), value)

    @staticmethod
    def load(path: str | Path) -> LatencyTable:
        """Read a table of gradnas, or one of the released phone form (`.json`, `.yaml`, `.yml`).

        Raises:
            ValueError: the file cannot be read or is no such table; the sentence names the file and
                the place.
        """
        path = Path(path)
        if path.suffix in (".yaml", ".yml"):
            return _from_mobile(_read_flat_yaml(path), str(path))
        data = read_object(path)
        if "format" not in data:
            return _from_mobile(data, str(path))
        if data["format"] != FORMAT or data.get("version") != VERSION:
            raise ValueError(
                f"{path} is a {data['format']!r} file of version {data.get('version')}, not a latency table "
                f"({FORMAT!r}, version {VERSION})"
            )
        known = {"format", "version", *(f.name for f in fields(LatencyTable))}
        for name in data:
            if name not in known:
                raise ValueError(f"{path}: unknown field {name!r}{did_you_mean(name, known)}")
        entries = data.get("entries")
        if not isinstance(entries, dict) or not all(
            isinstance(entry, dict) for entry in entries.values()
        ):
            raise ValueError(f"{path}: 'entries' must be an object from keys to objects")
        device, predictor = data.get("device"), data.get("predictor")
        return LatencyTable(
            entries={
                key: build(Entry, entry, f"{path}: entry {key!r}") for key, entry in entries.items()
            },
            device=None if device is None else build(Device, device, f"{path}: device"),
            settings=data.get("settings", {}),
            versions=data.get("versions", {}),
            predictor=None
            if predictor is None
            else Predictor.from_json(predictor, f"{path}: predictor"),
        )

    def with_predictor(self, predictor: Predictor) -> LatencyTable:
        """The same table with a predictor."""
        return replace(self, predictor=predictor)


def _without_batch(key: str) -> list[str]:
    """Input and output shapes of a key without their first sizes."""
    shapes = re.findall(r"(?:input|output):([0-9x,]+)", key)
    return [",".join(s.partition("x")[2] for s in shape.split(",")) for shape in shapes]


def _cpu_name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:  # not Linux
        lines = []
    for line in lines:
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


# ---- the released phone form ---------------------------------------------------------------------


def mobile_key(
    kind: str,
    size_in: tuple[int, int, int],
    size_out: tuple[int, int, int] | int,
    expand: int | None = None,
    kernel: int | None = None,
    stride: int | None = None,
    idskip: bool | None = None,
) -> str:
    """A key of the phone tables; sizes are (height, width, channels), the output of `Logits` a
    number of classes.

    `expanded_conv-input:56x56x24-output:56x56x24-expand:3-kernel:3-stride:1-idskip:1`
    """
    if kind not in MOBILE_KINDS:
        raise ValueError(
            f"unknown kind {kind!r}{did_you_mean(kind, MOBILE_KINDS)}; the kinds are {MOBILE_KINDS}"
        )
    out = str(size_out) if isinstance(size_out, int) else "x".join(map(str, size_out))
    key = f"{kind}-input:{'x'.join(map(str, size_in))}-output:{out}"
    if kind == "expanded_conv":
        if expand is None or kernel is None or stride is None or idskip is None:
            raise ValueError("an expanded_conv has expand, kernel, stride and idskip")
        key += f"-expand:{expand}-kernel:{kernel}-stride:{stride}-idskip:{int(idskip)}"
    return key


_MOBILE = re.compile(
    r"(?P<kind>Conv|Conv_1|Logits|expanded_conv)-input:(?P<input>[0-9]+x[0-9]+x[0-9]+)-output:(?P<output>[0-9x]+)"
    r"(?:-expand:(?P<expand>[0-9]+)-kernel:(?P<kernel>[0-9]+)-stride:(?P<stride>[0-9]+)-idskip:(?P<idskip>[01]))?"
)


def _mobile_parts(key: str) -> dict[str, str] | None:
    found = _MOBILE.fullmatch(key)
    if found is None or (found["kind"] == "expanded_conv") != (found["expand"] is not None):
        return None
    return {name: value for name, value in found.groupdict().items() if value is not None}


def mobile_features(key: str) -> dict[str, float]:
    """What a predictor may know about a key of a phone table. ValueError for a key of another
    grammar."""
    parts = _mobile_parts(key)
    if parts is None:
        raise ValueError(f"{key!r} is no key of a phone table (TYPE-input:HxWxC-output:HxWxC...)")
    height, width, channels = (int(n) for n in parts["input"].split("x"))
    output = [int(n) for n in parts["output"].split("x")]
    expand = int(parts.get("expand", 1))
    middle = channels * expand
    return {
        **{f"is_{kind}": float(parts["kind"] == kind) for kind in MOBILE_KINDS},
        "inputs": height * width * channels,
        "outputs": math.prod(output),
        "channels_in": channels,
        "channels_out": output[-1],
        "kernel": int(parts.get("kernel", 1)),
        "stride": int(parts.get("stride", 1)),
        "expansion": expand,
        "skip": int(parts.get("idskip", 0)),
        "widened_inputs": height * width * middle,
    }


def _from_mobile(data: Mapping[str, Any], where: str) -> LatencyTable:
    entries = {}
    for key, value in data.items():
        if _mobile_parts(key) is None:
            raise ValueError(
                f"{where} is neither a latency table of gradnas nor one of a phone: the key {key!r} is not of the form "
                "TYPE-input:HxWxC-output:HxWxC"
            )
        if not isinstance(value, Mapping) or not all(
            isinstance(value.get(name), (int, float)) and not isinstance(value.get(name), bool)
            for name in ("count", "mean", "var")
        ):
            raise ValueError(f"{where}: {key!r} needs the numbers count, mean and var")
        if not value["var"] >= 0:
            raise ValueError(f"{where}: {key!r}: var must be at least 0, not {value['var']}")
        try:
            spread = math.sqrt(value["var"])
            entries[key] = Entry(
                float(value["mean"]), spread, int(value["count"]), features=mobile_features(key)
            )
        except ValueError as error:
            raise ValueError(f"{where}: {key!r}: {error}") from error
    if not entries:
        raise ValueError(f"{where} holds no latencies")
    return LatencyTable(entries)


_YAML_KEY = re.compile(r"(?P<quote>['\"]?)(?P<key>[A-Za-z_0-9:x-]+)(?P=quote):\s*(?P<rest>.*)")
_YAML_FIELD = re.compile(r"\s+(?P<name>[a-z_]+):\s*(?P<number>[-+.0-9eE]+)\s*")


def _read_flat_yaml(path: Path) -> dict[str, dict[str, float]]:
    """The one form of YAML that phone tables have: keys with numbers under them, indented or in
    braces."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ValueError(f"cannot read {path}: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not a text file: {error}") from error
    table: dict[str, dict[str, float]] = {}
    current: dict[str, float] | None = None
    for number, line in enumerate(lines, 1):
        text = line.rstrip()
        if not text or text.lstrip().startswith("#") or text in ("---", "...", "{}"):
            continue
        inside = _YAML_FIELD.fullmatch(text)
        if inside is not None and current is not None:
            current[inside["name"]] = _number(inside["number"], path, number)
            continue
        head = _YAML_KEY.fullmatch(text)
        if head is None:
            raise ValueError(
                f"{path}, line {number}: a phone table has lines 'KEY:' and, indented, 'name: number', not {text!r}"
            )
        if head["key"] in table:
            raise ValueError(f"{path}, line {number}: the key {head['key']!r} appears twice")
        current = table.setdefault(head["key"], {})
        rest = head["rest"]
        if rest:
            pairs = re.fullmatch(r"\{(.*)\}", rest)
            found = (
                [_YAML_FIELD.fullmatch(f" {part.strip()}") for part in pairs[1].split(",")]
                if pairs
                else [None]
            )
            if any(part is None for part in found):
                raise ValueError(
                    f"{path}, line {number}: expected {{name: number, ...}} after the key, not {rest!r}"
                )
            current |= {
                part["name"]: _number(part["number"], path, number)
                for part in found
                if part is not None
            }
    return table


def _number(text: str, path: Path, line: int) -> float:
    try:
        value = json.loads(text) if re.fullmatch(r"-?[0-9]+", text) else float(text)
    except ValueError:
        raise ValueError(f"{path}, line {line}: {text!r} is not a number") from None
    return value
