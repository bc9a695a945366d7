"""Tables of latencies: measured here, or brought along for another device.

A table is plain data. gradnas writes JSON; tables of phones (`phone.py`) are read too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path

from gradnas.config import Json, JsonObject, build, did_you_mean, read_object, shown
from gradnas.latency.entry import Device, Entry, Latency
from gradnas.latency.phone import is_mobile_key, mobile_entries, read_mobile_yaml
from gradnas.latency.predictor import Predictor
from gradnas.runs import write_json

FORMAT = "gradnas-latency"
VERSION = 1


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
    settings: Mapping[str, Json] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    predictor: Predictor | None = None

    @property
    def is_mobile(self) -> bool:
        """Whether the keys are those of the released phone tables."""
        return bool(self.entries) and all(is_mobile_key(key) for key in self.entries)

    @property
    def batch_size(self) -> int | None:
        """How many examples its latencies are for; None where it does not say."""
        number = self.settings.get("batch_size")
        return number if type(number) is int and number > 0 else None

    def look_up(
        self, key: str, features: Mapping[str, float] | None = None, label: str = ""
    ) -> Latency:
        """The latency of a key: measured, or predicted from `features`.

        Args:
            label: what the key stands for, in an error.

        Raises:
            ValueError: the table lacks the key and cannot predict it.
        """
        entry = self.entries.get(key)
        if entry is not None:
            return Latency(entry.ms, predicted=False)
        if self.predictor is not None and features:
            return Latency(self.predictor.predict(features), predicted=True)
        raise ValueError(self._missing(key, label))

    def _missing(self, key: str, label: str) -> str:
        """What to say of a key that the table lacks: above all, what it has instead."""
        of_another_batch = self._same_but_for_the_batch(key)
        if of_another_batch is None:
            hint = did_you_mean(key, self.entries)
        else:
            kind, _, rest = of_another_batch.partition("-")
            inputs = rest.partition("-output")[0]
            hint = f"; it has {kind} of {inputs}: "
            if of_another_batch.partition("-id:")[0] == key.partition("-id:")[0]:
                hint += "is it the same module, with the same settings and dtypes?"
            else:
                hint += "is the batch size the one it was measured with?"
        advice = "measure it (gradnas latency measure)"
        if self.predictor is None:
            advice += ", or fit a predictor on the table (gradnas latency fit)"
        what = f" for {label}" if label else ""
        return f"the latency table has no entry{what}: {key!r}{hint}; {advice}"

    def _same_but_for_the_batch(self, key: str) -> str | None:
        """The key of an entry of the same type, with these shapes but for their first sizes.

        The digests differ, since the shapes are a part of them.
        """
        kind = key.partition("-")[0]
        if "-id:" not in key or not key.rpartition("-id:")[2]:
            return None
        shapes = _shapes_without_batch(key)
        for other in self.entries:
            is_same_kind = other.startswith(f"{kind}-") and "-id:" in other
            if is_same_kind and _shapes_without_batch(other) == shapes:
                return other
        return None

    # ---- files -----------------------------------------------------------------------------------

    def save(self, path: str | Path) -> None:
        """Write JSON, atomically."""
        write_json(Path(path), self.to_json())

    def to_json(self) -> JsonObject:
        """What its file holds."""
        value: JsonObject = {"format": FORMAT, "version": VERSION}
        if self.device is not None:
            value["device"] = asdict(self.device)
        value["settings"] = dict(self.settings)
        value["versions"] = dict(self.versions)
        value["entries"] = {key: _known(entry) for key, entry in self.entries.items()}
        if self.predictor is not None:
            value["predictor"] = self.predictor.to_json()
        return value

    @staticmethod
    def load(path: str | Path) -> LatencyTable:
        """Read a table of gradnas, or one of the released phone form (`.json`, `.yaml`, `.yml`).

        Raises:
            ValueError: the file cannot be read or is no such table; the sentence names the file and
                the place.
        """
        path = Path(path)
        if path.suffix in (".yaml", ".yml"):
            return LatencyTable(mobile_entries(read_mobile_yaml(path), str(path)))
        data = read_object(path)
        if "format" not in data:
            return LatencyTable(mobile_entries(data, str(path)))
        if data["format"] != FORMAT or data.get("version") != VERSION:
            raise ValueError(
                f"{path} is a {data['format']!r} file of version {data.get('version')}, "
                f"not a latency table ({FORMAT!r}, version {VERSION})"
            )
        known = {"format", "version", *(f.name for f in fields(LatencyTable))}
        for name in data:
            if name not in known:
                raise ValueError(f"{path}: unknown field {name!r}{did_you_mean(name, known)}")
        entries = {}
        for key, entry in _objects_in(data.get("entries"), path).items():
            entries[key] = build(Entry, entry, f"{path}: entry {key!r}")
        device = data.get("device")
        if device is not None:
            device = build(Device, device, f"{path}: device")
        predictor = data.get("predictor")
        if predictor is not None:
            predictor = Predictor.from_json(predictor, f"{path}: predictor")
        for name in ("settings", "versions"):
            if not isinstance(data.get(name, {}), dict):
                raise ValueError(f"{path}: {name!r} must be an object, not {shown(data[name])}")
        return LatencyTable(
            entries=entries,
            device=device,
            settings=data.get("settings", {}),
            versions=data.get("versions", {}),
            predictor=predictor,
        )

    def with_predictor(self, predictor: Predictor) -> LatencyTable:
        """The same table with a predictor."""
        return replace(self, predictor=predictor)


def _known(entry: Entry) -> JsonObject:
    """The fields of an entry that say something."""
    return {name: value for name, value in asdict(entry).items() if value not in (None, "")}


def _objects_in(entries: Json, path: Path) -> dict[str, JsonObject]:
    """`entries`, if it is what it should be."""
    is_object = isinstance(entries, dict)
    if not is_object or not all(isinstance(entry, dict) for entry in entries.values()):
        raise ValueError(f"{path}: 'entries' must be an object from keys to objects")
    return entries


def _shapes_without_batch(key: str) -> list[str]:
    """Input and output shapes of a key without their first sizes."""
    without = []
    for shapes in re.findall(r"(?:input|output):([0-9x,]+)", key):
        rests = [shape.partition("x")[2] for shape in shapes.split(",")]
        without.append(",".join(rests))
    return without
