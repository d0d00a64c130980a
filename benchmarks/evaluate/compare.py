"""Times BLiMP on one model with picolm and with lm-eval, each in its own process, rounds interleaved. See README.md."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
CONTENDERS = ("lm-eval", "picolm", "picolm on the Hugging Face model")
TINY = {"d_model": 96, "activation_hidden_dim": 384, "n_layers": 12, "attention_n_heads": 12, "attention_n_kv_heads": 4}


def write_model(folder: Path, max_seq_len: int) -> None:
    """A pico-decoder-tiny with random weights, as a Hugging Face Llama folder."""
    import torch

    from picolm.model.contract import build_model, save_model
    from picolm.model.decoder import DecoderConfig

    save_model(build_model(DecoderConfig(max_seq_len=max_seq_len, **TINY), torch.Generator().manual_seed(0)), folder)


def contend(contender: str, model_folder: Path, data: Path, pairs: int) -> dict[str, Any]:
    """One contender in this process: seconds from records in memory to scores, and the log-probability of every sentence."""
    if contender == "lm-eval":
        return with_lm_eval(model_folder, data, pairs)
    return with_picolm(model_folder, data, pairs, hugging_face=contender != "picolm")


def with_picolm(model_folder: Path, data: Path, pairs: int, *, hugging_face: bool) -> dict[str, Any]:
    from picolm.data.tokenizer import load_tokenizer
    from picolm.evaluate.contract import Given
    from picolm.evaluate.minimal_pairs import Blimp
    from picolm.evaluate.scorer import Scorer
    from picolm.model.contract import load_model

    model: Any = hugging_face_model(model_folder) if hugging_face else load_model(model_folder)
    tokenizer = load_tokenizer(tokenizer_file(data))
    evaluation = Blimp(data=str(data / "blimp"), limit=pairs)
    evaluation.check(Given(tokenizer=tokenizer))
    with Scorer(model, tokenizer) as scorer:
        start, cpu_start = time.perf_counter(), time.process_time()
        scores = evaluation.run(scorer)
        seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
        log_probs = evaluation.pairs.log_probs(scorer)
    accuracy = next(score.value for score in scores if score.group == "all" and score.measure == "accuracy")
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, "accuracy": accuracy, "log_probs": log_probs.tolist()}


def with_lm_eval(model_folder: Path, data: Path, pairs: int) -> dict[str, Any]:
    import lm_eval
    from lm_eval.tasks import TaskManager

    sys.path.insert(0, str(ROOT / "tests" / "evaluate"))
    from lm_eval_reference import built_in_task, log_likelihoods, wrapped

    model = wrapped(hugging_face_model(model_folder), tokenizer_file(data))
    files = sorted((data / "blimp").glob("*.jsonl"))
    tasks = [built_in_task(yaml_of(path), path) for path in files]
    manager = TaskManager(include_defaults=False)
    start, cpu_start = time.perf_counter(), time.process_time()
    results = lm_eval.simple_evaluate(model, tasks=tasks, task_manager=manager, limit=pairs, bootstrap_iters=0, log_samples=True)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    by_task = {task: sorted(samples, key=lambda sample: sample["doc_id"]) for task, samples in results["samples"].items()}
    samples = [sample for task in tasks for sample in by_task[task.config.task]]
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "accuracy": statistics.fmean(sample["acc"] for sample in samples),
        "log_probs": [log_likelihoods(sample) for sample in samples],
    }


def yaml_of(path: Path) -> str:
    """lm-eval's definition of a paradigm; the two spell some names with other capitals."""
    import lm_eval

    folder = Path(lm_eval.__file__).parent / "tasks" / "blimp"
    by_name = {entry.stem.lower(): entry.name for entry in folder.glob("*.yaml")}
    return f"blimp/{by_name[path.stem.lower()]}"


def hugging_face_model(folder: Path) -> Any:
    from transformers import LlamaForCausalLM

    return LlamaForCausalLM.from_pretrained(folder).eval()


def tokenizer_file(data: Path) -> Path:
    return data / "tokenizer" / "gpt-neox-olmo-dolma-v1_5.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=100, help="pairs of each of the 67 paradigms")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--max-seq-len", type=int, default=2048)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    parser.add_argument("--contender", nargs=3, metavar=("NAME", "MODEL", "OUT"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    data = Path(os.environ["PICO_TEST_DATA"]) / "data"
    if arguments.contender:
        name, model, out = arguments.contender
        Path(out).write_text(json.dumps(contend(name, Path(model), data, arguments.pairs)))
        return
    report = compare(arguments)
    print(json.dumps(report, indent=1))
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def compare(arguments: argparse.Namespace) -> dict[str, Any]:
    """Medians of all rounds, ratios to lm-eval, and how far the log-probabilities are apart."""
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in CONTENDERS}
    with tempfile.TemporaryDirectory() as place:
        model, out = Path(place) / "model", Path(place) / "out.json"
        write_model(model, arguments.max_seq_len)
        for _ in range(arguments.rounds):
            for name in CONTENDERS:
                command = [sys.executable, __file__, "--pairs", str(arguments.pairs), "--contender", name, str(model), str(out)]
                subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
                found[name].append(json.loads(out.read_text()))
                print(f"{name}: {found[name][-1]['seconds']:.1f} s", file=sys.stderr)
    reference = found["lm-eval"][0]["log_probs"]
    median = {
        name: {unit: statistics.median(result[unit] for result in results) for unit in ("seconds", "cpu_seconds")}
        for name, results in found.items()
    }
    return {
        name: {
            **median[name],
            "times_faster_than_lm_eval": median["lm-eval"]["seconds"] / median[name]["seconds"],
            "times_less_cpu_than_lm_eval": median["lm-eval"]["cpu_seconds"] / median[name]["cpu_seconds"],
            "accuracy": results[0]["accuracy"],
            "largest_relative_difference": largest_difference(results[0]["log_probs"], reference),
        }
        for name, results in found.items()
    }


def largest_difference(mine: list[list[float]], reference: list[list[float]]) -> float:
    pairs = zip(mine, reference, strict=True)
    return max(abs(a / b - 1) for ours, theirs in pairs for a, b in zip(ours, theirs, strict=True))


if __name__ == "__main__":
    main()
