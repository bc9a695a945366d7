"""Nested frozen dataclasses <-> JSON, with errors that name the field and the nearest right one."""

from gradnas.config.ranges import RANGES as RANGES
from gradnas.config.ranges import Range as Range
from gradnas.config.ranges import check_numbers as check_numbers
from gradnas.config.text import Json as Json
from gradnas.config.text import JsonObject as JsonObject
from gradnas.config.text import check_file as check_file
from gradnas.config.text import counted as counted
from gradnas.config.text import parse_json as parse_json
from gradnas.config.text import read_text as read_text
from gradnas.config.text import shown as shown
from gradnas.config.text import visible as visible
from gradnas.config.trees import build as build
from gradnas.config.trees import decoded as decoded
from gradnas.config.trees import did_you_mean as did_you_mean
from gradnas.config.trees import from_json as from_json
from gradnas.config.trees import load as load
from gradnas.config.trees import read_object as read_object
from gradnas.config.trees import subclasses as subclasses
from gradnas.config.trees import to_json as to_json
