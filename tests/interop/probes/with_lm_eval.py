"""The folder in the lm-evaluation-harness: log-likelihoods of continuations, and a task made of local lines."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import lm_eval
from lm_eval.api.instance import Instance
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks import TaskManager

folder, pairs_file = sys.argv[1], sys.argv[2]
pairs = [json.loads(line) for line in Path(pairs_file).read_text(encoding="utf-8").splitlines()]
model = HFLM(pretrained=folder, device="cpu", dtype="float32", batch_size=2)
requests = [Instance("loglikelihood", {}, (pair["context"], pair["continuation"]), index) for index, pair in enumerate(pairs)]
scores = [score for score, _ in model.loglikelihood(requests)]
task = {
    "task": "pairs",
    "dataset_path": "json",
    "dataset_kwargs": {"data_files": {"test": pairs_file}},
    "test_split": "test",
    "output_type": "multiple_choice",
    "doc_to_text": "",
    "target_delimiter": "",
    "doc_to_choice": "{{[good, bad]}}",
    "doc_to_target": 0,
    "metric_list": [{"metric": "acc"}],
}
results = lm_eval.simple_evaluate(
    model, tasks=[task], task_manager=TaskManager(include_defaults=False), bootstrap_iters=0, log_samples=True
)
print(
    json.dumps(
        {
            "version": version("lm-eval"),
            "scores": scores,
            "accuracy": results["results"]["pairs"]["acc,none"],
            "pair_scores": [[float(answer[0]) for answer in sample["filtered_resps"]] for sample in results["samples"]["pairs"]],
        }
    )
)
