"""The page of the rooms says what the code is: layers, rooms, and what each is for."""

from __future__ import annotations

import sys

import pytest
from cases import ROOT

sys.path.insert(0, str(ROOT / "docs"))

import rooms


def test_the_drawing_and_the_table_are_those_of_the_code(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["rooms.py", "--check"])
    code = rooms.main()
    said = capsys.readouterr()
    assert code == 0, f"run `python docs/rooms.py`; what differs: {said.out}{said.err}"


def test_every_room_stands_in_the_import_contract():
    drawn = {room for layer in rooms.layers() for room in layer}
    here = {path.stem for path in (ROOT / "gradnas").glob("*.py")} - {"__init__"}
    here |= {path.parent.name for path in (ROOT / "gradnas").glob("*/__init__.py")}
    assert drawn == here


def test_another_contract_gives_another_drawing():
    layers = rooms.layers()
    assert rooms.picture(layers) != rooms.picture(layers[::-1])
    assert rooms.table(layers) != rooms.table(layers[1:])


def test_a_room_without_a_docstring_is_refused(tmp_path, monkeypatch):
    (tmp_path / "gradnas").mkdir()
    (tmp_path / "gradnas" / "silent.py").write_text("x = 1\n")
    monkeypatch.setattr(rooms, "ROOT", tmp_path)
    with pytest.raises(ValueError, match=r"gradnas/silent\.py has no docstring"):
        rooms.purpose("silent")
