"""Latencies: what operations cost on a device. Measure, keep in tables, predict."""

from gradnas.latency.costs import Costs as Costs
from gradnas.latency.costs import costs_of as costs_of
from gradnas.latency.costs import device_notes as device_notes
from gradnas.latency.costs import predicted_note as predicted_note
from gradnas.latency.counts import macs as macs
from gradnas.latency.counts import num_params as num_params
from gradnas.latency.entry import Device as Device
from gradnas.latency.entry import Entry as Entry
from gradnas.latency.measure import Timing as Timing
from gradnas.latency.measure import measure as measure
from gradnas.latency.measure import time_interleaved as time_interleaved
from gradnas.latency.phone import mobile_features as mobile_features
from gradnas.latency.phone import mobile_key as mobile_key
from gradnas.latency.predictor import Predictor as Predictor
from gradnas.latency.quantities import LATENCY as LATENCY
from gradnas.latency.quantities import QUANTITIES as QUANTITIES
from gradnas.latency.quantities import Quantity as Quantity
from gradnas.latency.registered import Place as Place
from gradnas.latency.registered import When as When
from gradnas.latency.survey import CostView as CostView
from gradnas.latency.survey import Survey as Survey
from gradnas.latency.survey import Unit as Unit
from gradnas.latency.survey import survey as survey
from gradnas.latency.table import LatencyTable as LatencyTable
