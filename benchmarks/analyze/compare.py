"""Times both contenders, each in its own process, rounds interleaved, and prints medians and ratios. See README.md."""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
CONTENDERS = ("picolm", "usual", "picolm circuits", "usual circuits")
ANALYSIS = {
    "analysis_name": "benchmark",
    "metrics": [
        *("gini", "hoyer", "per", "condition_number", "cka", "pwcca"),
        *({"name": "norm", "norm_type": norm_type} for norm_type in ("frobenius", "nuclear", "inf")),
    ],
    "components": [
        {"name": "simple", "data_type": ["weights", "activations"], "data_split": "val"},
        {"name": "simple", "data_type": "gradients", "data_split": "train"},
        {"name": "ov_circuit", "data_type": ["weights", "activations"], "data_split": "val"},
        {"name": "ov_circuit", "data_type": "first_order", "data_split": "train"},
    ],
}


def contend(contender: str, folder: Path) -> dict[str, Any]:
    """Run one contender in this process: seconds, peak memory, and a digest of its values."""
    import pandas  # noqa: F401
    import pyarrow.parquet  # noqa: F401
    import torch

    from picolm.analyze.components.contract import COMPONENTS
    from picolm.analyze.config import AnalysisConfig
    from picolm.analyze.engine import analyze_run
    from picolm.analyze.metrics.contract import METRICS
    from picolm.base.config import parse_settings
    from picolm.records.rundir import RunDirectory

    sys.path.insert(0, str(HERE))
    import usual

    run = RunDirectory(folder)
    torch.linalg.svdvals(torch.eye(3))  # load the libraries before the clock starts
    METRICS.entries(), COMPONENTS.entries()
    start, used = time.perf_counter(), time.process_time()
    if contender == "picolm":
        settings = {**ANALYSIS, "analysis_name": f"benchmark-{time.time_ns()}"}
        rows = analyze_run(run, parse_settings(AnalysisConfig, settings, "benchmark"))
        digest = {"rows": len(rows), "per of weights": rows[(rows.metric == "per") & (rows.data_type == "weights")].value.mean()}
    elif contender == "usual":
        values = usual.measure_all(run)
        chosen = [value for (_, key), value in values.items() if key[-2:] == ("weights", "per")]
        digest = {"rows": len(values), "per of weights": statistics.fmean(chosen)}
    elif contender == "picolm circuits":
        digest = {"sum of singular values": float(torch.stack(factored_singular_values(run)).sum())}
    else:
        digest = {"sum of singular values": float(torch.stack(usual.singular_values_of_circuits(run)).double().sum())}
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - used
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        **digest,
    }


def factored_singular_values(run: Any) -> list[Any]:
    """Singular values of the OV circuits of every step, as the engine takes them."""
    from picolm.analyze.components.contract import find_component
    from picolm.analyze.matrix import Matrix
    from picolm.records.snapshot import open_snapshot

    circuit = find_component("ov_circuit", "weights", {}, "benchmark")
    snapshots = [open_snapshot(run.checkpoint(step), step, "val") for step in run.steps()]
    return [Matrix(piece.load).singular_values_R for snapshot in snapshots for piece in circuit.pieces(snapshot)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--width", type=int, nargs="+", default=[96, 768])
    parser.add_argument("--layers", type=int, default=12)
    parser.add_argument("--steps", type=int, default=5)
    parser.add_argument("--samples", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=CONTENDERS, default=CONTENDERS, help="contenders to run")
    parser.add_argument("--json", type=Path, help="file that receives the figures")
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(contend(options.contender, options.folder)))
        return
    figures = [measure_width(width, options) for width in options.width]
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1) + "\n")


def measure_width(width: int, options: argparse.Namespace) -> dict[str, Any]:
    sys.path.insert(0, str(HERE))
    from synthetic_run import write_run

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / f"width-{width}"
        write_run(folder, width=width, layers=options.layers, steps=options.steps, samples=options.samples)
        results: dict[str, list[dict[str, Any]]] = {contender: [] for contender in options.only}
        for _ in range(options.rounds):
            for contender in options.only:
                command = [sys.executable, __file__, "--contender", contender, "--folder", str(folder)]
                output = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
                results[contender].append(json.loads(output.splitlines()[-1]))
    print(
        f"width {width}, {options.layers} layers, {options.steps} checkpoints, {options.samples} samples, {options.rounds} rounds"
    )
    wall, cpu = (
        {contender: statistics.median(each[clock] for each in found) for contender, found in results.items()}
        for clock in ("seconds", "cpu_seconds")
    )
    for contender, found in results.items():
        digest = {name: value for name, value in found[-1].items() if name not in ("seconds", "cpu_seconds", "peak_mb")}
        peak = max(each["peak_mb"] for each in found)
        print(f"  {contender:16} {wall[contender]:9.2f} s   {cpu[contender]:9.2f} CPU s   peak {peak:6.0f} MB   {digest}")
    for ours, theirs in (("picolm", "usual"), ("picolm circuits", "usual circuits")):
        if ours in wall and theirs in wall:
            times, of_cpu = wall[theirs] / wall[ours], cpu[theirs] / cpu[ours]
            print(f"  {ours}: {times:.1f} times as fast as {theirs}, with {of_cpu:.1f} times less CPU time")
    return {"width": width, "layers": options.layers, "steps": options.steps, "samples": options.samples, "results": results}


if __name__ == "__main__":
    main()
