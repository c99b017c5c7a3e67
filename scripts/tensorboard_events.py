#!/usr/bin/env python3
"""Reads the event files of a run with TensorBoard's own reader and compares them with metrics.jsonl.

    pip install tensorboard
    python3 scripts/tensorboard_events.py RUN
"""

import json
import math
import sys
from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

run = Path(sys.argv[1])
events = EventAccumulator(str(run), size_guidance={"scalars": 0, "histograms": 0})
events.Reload()

want, histograms = {}, {}
for line in map(json.loads, open(run / "metrics.jsonl")):
    def scalar(tag, value):
        want.setdefault(tag, {})[line["step"]] = value

    if line["kind"] == "step":
        scalar("loss/train", line["loss"])
        if line["lr"] is not None:
            scalar("lr", line["lr"])
    elif line["kind"] == "epoch":
        scalar("loss/epoch", line["loss"])
        for name, value in (line["validation"] or {}).items():
            if not isinstance(value, list):
                scalar("loss/validation" if name == "loss" else f"validation/{name}", value)
    elif line["kind"] == "norms":
        for kind in ("gradient", "weight", "update"):
            for name, value in line[kind].items():
                scalar(f"norms/{kind}/{name}", value)
    elif line["kind"] == "weights":
        for name, value in line["parameters"].items():
            histograms.setdefault(f"weights/{name}", {})[line["step"]] = value

compared = 0
for tag, values in want.items():
    # With several batches per step, the last one counts.
    got = {event.step: event.value for event in events.Scalars(tag)}
    assert got.keys() == values.keys(), (tag, got.keys() ^ values.keys())
    for step, value in values.items():
        if value is not None:
            assert math.isclose(got[step], value, rel_tol=1e-6, abs_tol=1e-30), (tag, step, got[step], value)
            compared += 1
for tag, values in histograms.items():
    got = {event.step: event.histogram_value for event in events.Histograms(tag)}
    assert got.keys() == values.keys(), (tag, got.keys() ^ values.keys())
    for step, value in values.items():
        histogram = got[step]
        assert (histogram.min, histogram.max, histogram.num) == (value["min"], value["max"], value["count"]), (tag, step)
        assert list(histogram.bucket) == value["bins"] and len(histogram.bucket_limit) == len(value["bins"])
        compared += 1
assert compared > 0, "nothing to compare"
print(f"{compared} values of {len(want) + len(histograms)} tags agree")
