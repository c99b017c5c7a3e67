#!/usr/bin/env python3
"""Times ONNX models with ONNX Runtime, for comparison with `wgrad onnx bench MODEL --json`.

    scripts/onnxruntime_models.py [--provider WebGpu] FOLDER [NAME...]

FOLDER/NAME.onnx and FOLDER/NAME.safetensors with tensors `input.X` and `output.Y`, as in examples/data/onnx. Prints a line
of JSON for each model: seconds to load, of the first run and of a run (median), the largest difference to the expected
outputs as a share of the largest number, and the peak memory of the process. Each model runs in a process of its own.
Needs `onnxruntime` (or `onnxruntime-webgpu`), numpy and safetensors.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("--provider", default="CPU", help="CPU or WebGpu")
parser.add_argument("--seconds", type=float, default=2.0)
parser.add_argument("--one", action="store_true", help=argparse.SUPPRESS)
parser.add_argument("folder")
parser.add_argument("names", nargs="*")
options = parser.parse_args()


def measure(path):
    import numpy as np
    import onnxruntime
    from safetensors.numpy import load_file

    tensors = load_file(path + ".safetensors")
    started = time.perf_counter()
    session = onnxruntime.InferenceSession(path + ".onnx", providers=[options.provider + "ExecutionProvider"])
    load = time.perf_counter() - started
    feeds = {port.name: tensors["input." + port.name] for port in session.get_inputs()}
    started = time.perf_counter()
    outputs = session.run(None, feeds)
    first = time.perf_counter() - started
    times = []
    begun = time.perf_counter()
    while len(times) < 3 or time.perf_counter() - begun < options.seconds:
        started = time.perf_counter()
        session.run(None, feeds)
        times.append(time.perf_counter() - started)
    difference = 0.0
    for port, output in zip(session.get_outputs(), outputs):
        wanted = tensors["output." + port.name].astype(np.float64)
        difference = max(difference, float(np.abs(output - wanted).max() / np.abs(wanted).max()))
    return {
        "model": os.path.basename(path), "provider": session.get_providers()[0], "version": onnxruntime.__version__,
        "load_seconds": load, "first_run_seconds": first, "median_seconds": statistics.median(times),
        "runs": len(times), "difference": difference,
        "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if options.one:
    print(json.dumps(measure(os.path.join(options.folder, options.names[0]))))
    sys.exit()
names = options.names or sorted(f[:-5] for f in os.listdir(options.folder) if f.endswith(".onnx"))
for name in names:
    command = [sys.executable, __file__, "--one", "--provider", options.provider, "--seconds", str(options.seconds)]
    subprocess.run(command + [options.folder, name], check=False)
