"""The native scores are those of lm-eval itself, item by item, for its built-in definitions of the tasks on local data."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from picolm.base.errors import PicoError
from picolm.data.tokenizer import TextTokenizer, train_tokenizer
from picolm.evaluate.arc import ArcEasy
from picolm.evaluate.contract import Given
from picolm.evaluate.harness import LmEval
from picolm.evaluate.hellaswag import HellaSwag
from picolm.evaluate.minimal_pairs import MinimalPairs
from picolm.evaluate.perplexity import Perplexity
from picolm.evaluate.scorer import Scorer
from picolm.evaluate.truthfulqa import TruthfulQA
from picolm.model.contract import LanguageModel, build_model, save_model
from picolm.model.decoder import DecoderConfig

from .lm_eval_reference import built_in_task, lm_eval_samples, log_likelihoods, wrapped

pytestmark = pytest.mark.data


class Trained(NamedTuple):
    """A small trained model three ways: ours, and in lm-eval's hands; with its tokenizer."""

    model: LanguageModel
    lm_eval: Any
    tokenizer: TextTokenizer


@pytest.fixture(scope="module")
def trained(test_data: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trained]:
    pytest.importorskip("lm_eval")
    transformers = pytest.importorskip("transformers")
    folder = tmp_path_factory.mktemp("trained")
    texts = [json.loads(line)["text"] for line in (test_data / "data/corpus_books/validation.jsonl").open(encoding="utf-8")]
    tokenizer = train_tokenizer(iter(texts), folder / "tokenizer.json", vocab_size=1024)
    config = DecoderConfig(
        vocab_size=1024,
        max_seq_len=384,
        d_model=32,
        n_layers=2,
        attention_n_heads=4,
        attention_n_kv_heads=2,
        activation_hidden_dim=64,
    )
    model = build_model(config, torch.Generator().manual_seed(0))
    train_briefly(model, torch.from_numpy(np.concatenate(tokenizer.encode_batch(texts)).astype(np.int64)))
    save_model(model, folder / "model")
    hugging_face = transformers.LlamaForCausalLM.from_pretrained(folder / "model")
    yield Trained(model, wrapped(hugging_face, folder / "tokenizer.json"), tokenizer)


def train_briefly(model: LanguageModel, tokens: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(0)
    for _ in range(60):
        starts = torch.randint(0, len(tokens) - 65, (16,), generator=generator)
        rows_BT = torch.stack([tokens[start : start + 65] for start in starts])
        (model.loss_sum(rows_BT[:, :-1], rows_BT[:, 1:]) / 1024).backward()
        optimizer.step()
        optimizer.zero_grad()


def check_items(ours: Sequence[Sequence[float]], theirs: Sequence[dict[str, Any]]) -> None:
    assert len(ours) == len(theirs) > 0
    for mine, sample in zip(ours, theirs, strict=True):
        assert list(mine) == pytest.approx(log_likelihoods(sample), rel=1e-6)


def given(trained: Trained) -> Given:
    return Given(None, trained.tokenizer, trained.model.max_seq_len)


@pytest.mark.parametrize("paradigm", ["passive_1", "principle_A_case_2", "only_npi_scope", "wh_island"])
def test_blimp(trained, test_data, paradigm):
    data = test_data / f"data/blimp/{paradigm}.jsonl"
    theirs = lm_eval_samples(trained.lm_eval, built_in_task(f"blimp/{paradigm}.yaml", data), limit=120)
    evaluation = MinimalPairs(data=str(data), delimiter=" ", limit=120)
    evaluation.check(given(trained))
    with Scorer(trained.model, trained.tokenizer) as scorer:
        check_items(evaluation.log_probs(scorer), theirs)
        accuracy = next(score for score in evaluation.run(scorer) if score.measure == "accuracy")
    ties = sum(sample["doc"]["sentence_good"] == sample["doc"]["sentence_bad"] for sample in theirs)
    assert accuracy.value == pytest.approx((sum(sample["acc"] for sample in theirs) - ties) / 120)


def test_hellaswag_in_its_original_form(trained, test_data):
    data = test_data / "data/hellaswag/val_sample_1000_original.jsonl"
    theirs = lm_eval_samples(trained.lm_eval, built_in_task("hellaswag/hellaswag.yaml", data))
    evaluation = HellaSwag(data=str(data))
    evaluation.check(given(trained))
    with Scorer(trained.model, trained.tokenizer) as scorer:
        answers, _ = evaluation.items.answer(scorer)
        scores = {(score.group, score.measure): score for score in evaluation.run(scorer)}
    check_items([answer.log_probs for answer in answers], theirs)
    assert scores["all", "accuracy"].value == pytest.approx(np.mean([sample["acc"] for sample in theirs]))
    assert scores["all", "accuracy_per_character"].value == pytest.approx(np.mean([sample["acc_norm"] for sample in theirs]))
    assert scores["all", "accuracy"].n == 1000 and scores["all", "accuracy"].baseline == 0.25


@pytest.mark.parametrize("split", ["validation", "test"])
def test_arc_easy(trained, test_data, split):
    data = test_data / f"data/arc_easy/{split}.jsonl"
    theirs = lm_eval_samples(trained.lm_eval, built_in_task("arc/arc_easy.yaml", data), limit=250)
    evaluation = ArcEasy(data=str(data), limit=250)
    evaluation.check(given(trained))
    with Scorer(trained.model, trained.tokenizer) as scorer:
        answers, _ = evaluation.items.answer(scorer)
        scores = {score.measure: score for score in evaluation.run(scorer)}
    check_items([answer.log_probs for answer in answers], theirs)
    assert scores["accuracy"].value == pytest.approx(np.mean([sample["acc"] for sample in theirs]))
    assert scores["accuracy_per_character"].value == pytest.approx(np.mean([sample["acc_norm"] for sample in theirs]))


def test_truthfulqa_both_ways(trained, test_data, tmp_path):
    source = test_data / "data/truthfulqa/mc_task.json"
    questions = json.loads(source.read_text(encoding="utf-8"))[:30]
    data = tmp_path / "as_on_the_hub.jsonl"
    with data.open("w", encoding="utf-8") as file:
        for question in questions:
            for kind in ("mc1_targets", "mc2_targets"):
                question[kind] = {"choices": list(question[kind]), "labels": list(question[kind].values())}
            file.write(json.dumps(question) + "\n")
    mc1 = lm_eval_samples(trained.lm_eval, built_in_task("truthfulqa/truthfulqa_mc1.yaml", data))
    mc2 = lm_eval_samples(trained.lm_eval, built_in_task("truthfulqa/truthfulqa_mc2.yaml", data))
    for place in (source, data):
        evaluation = TruthfulQA(data=str(place), limit=30)
        evaluation.check(given(trained))
        with Scorer(trained.model, trained.tokenizer) as scorer:
            check_items([answer.log_probs for answer in evaluation.mc1.answer(scorer)[0]], mc1)
            check_items([answer.log_probs for answer in evaluation.mc2.answer(scorer)[0]], mc2)
            scores = {score.measure: score.value for score in evaluation.run(scorer)}
        assert scores["accuracy"] == pytest.approx(np.mean([sample["acc"] for sample in mc1]))
        assert scores["probability_of_true"] == pytest.approx(np.mean([sample["acc"] for sample in mc2]), rel=1e-6)


def test_rolling_perplexity(trained, test_data):
    data = test_data / "data/ppl_domains/val/gum_court.jsonl"
    task = built_in_task("paloma/_paloma_template", data, task="paloma_local")
    theirs = lm_eval_samples(trained.lm_eval, task)
    evaluation = Perplexity(data=str(data))
    evaluation.check(given(trained))
    with Scorer(trained.model, trained.tokenizer) as scorer:
        (tally,) = evaluation.tallies(scorer).values()
        bits = next(score for score in evaluation.run(scorer) if score.measure == "bits_per_byte")
    check_items([[-loss] for loss in tally.losses], theirs)
    sums, sizes = zip(*[sample["bits_per_byte"] for sample in theirs], strict=True)
    assert bits.value == pytest.approx(-sum(sums) / sum(sizes) / np.log(2), rel=1e-6)


TASK = """
task: {name}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: {output_type}
doc_to_text: "{text}"
{rest}
"""


def write_task(folder: Path, name: str, data: Path, output_type: str, text: str, rest: str) -> str:
    path = folder / f"{name}.yaml"
    path.write_text(TASK.format(name=name, data=data, output_type=output_type, text=text, rest=rest))
    return str(path)


def test_tasks_of_ones_own_run_through_the_adapter_with_the_results_of_lm_eval(trained, test_data, tmp_path):
    import lm_eval
    from lm_eval.tasks import TaskManager

    arc = test_data / "data/arc_easy/validation.jsonl"
    choices = (
        "doc_to_choice: '{{choices.text}}'\ndoc_to_target: '{{choices.label.index(answerKey)}}'\nmetric_list: [{metric: acc}]"
    )
    generate = (
        "doc_to_target: '{{answerKey}}'\ngeneration_kwargs: {until: ['.'], max_gen_toks: 12}\n"
        "metric_list: [{metric: exact_match}]"
    )
    court = test_data / "data/ppl_domains/val/gum_court.jsonl"
    tasks = (
        write_task(tmp_path, "own_choice", arc, "multiple_choice", "{{question}}", choices),
        write_task(
            tmp_path,
            "own_rolling",
            court,
            "loglikelihood_rolling",
            "",
            "doc_to_target: '{{text}}'\nmetric_list: [{metric: bits_per_byte}]",
        ),
        write_task(tmp_path, "own_generation", arc, "generate_until", "{{question}}", generate),
    )
    theirs = lm_eval.simple_evaluate(
        trained.lm_eval, tasks=list(tasks), task_manager=TaskManager(include_defaults=False), limit=20, bootstrap_iters=0
    )
    evaluation = LmEval(tasks=tasks, limit=20)
    evaluation.check(given(trained))
    with Scorer(trained.model, trained.tokenizer) as scorer:
        ours = {(score.group, score.measure): score for score in evaluation.run(scorer)}
        settings = evaluation.settings(scorer)
    for task, measure in (("own_choice", "acc"), ("own_rolling", "bits_per_byte"), ("own_generation", "exact_match")):
        assert ours[f"task/{task}", measure].value == pytest.approx(theirs["results"][task][f"{measure},none"], rel=1e-6)
    assert ours["task/own_choice", "acc"].standard_error is not None and ours["task/own_choice", "acc"].n == 20
    assert settings["formats"]["own_choice"]["doc_to_text"] == "{{question}}"
    assert set(settings["data_hash"]) == {"own_choice", "own_rolling", "own_generation"}
    assert json.loads(json.dumps(settings)) == settings


def test_requests_get_the_answers_of_lm_evals_own_model(trained):
    from lm_eval.api.instance import Instance

    from picolm.evaluate.harness_model import ScorerModel

    pairs = [("The King said", " that he"), ("", "of the"), ("a b c ", "d"), ("The", " same"), ("The", " same")]
    prompts = [("It was the", {"until": [" the"], "max_gen_toks": 8}), ("She", {"until": [], "max_gen_toks": 5})]
    with Scorer(trained.model, trained.tokenizer) as scorer:
        ours = ScorerModel(scorer)

        def both(kind: str, arguments: Sequence[Any]) -> tuple[list[Any], list[Any]]:
            requests = [Instance(kind, {}, each, index) for index, each in enumerate(arguments)]
            return getattr(ours, kind)(requests, disable_tqdm=True), getattr(trained.lm_eval, kind)(requests, disable_tqdm=True)

        mine, theirs = both("loglikelihood", pairs)
        assert [greedy for _, greedy in mine] == [greedy for _, greedy in theirs]
        assert [each for each, _ in mine] == pytest.approx([each for each, _ in theirs], rel=1e-6)
        mine, theirs = both("loglikelihood_rolling", [("a",), ("word " * 900,)])
        assert mine == pytest.approx(theirs, rel=1e-6)
        mine, theirs = both("generate_until", prompts)
        assert mine == theirs


def test_an_unknown_task_is_refused_by_check(trained, tmp_path):
    broken = write_task(tmp_path, "broken", tmp_path / "nowhere.jsonl", "multiple_choice", "x", "doc_to_choice: [a, b]")
    with pytest.raises(PicoError, match="cannot be loaded"):
        LmEval(tasks=(broken,)).check(given(trained))
    write_task(tmp_path, "mine_own", tmp_path / "nowhere.jsonl", "multiple_choice", "x", "")
    with pytest.raises(PicoError, match=r"has no task `mine_pwn`\nhint: did you mean `mine_own`"):
        LmEval(tasks=("mine_pwn",), include_path=str(tmp_path)).check(given(trained))
