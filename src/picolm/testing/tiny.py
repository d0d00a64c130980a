"""Everything in the smallest size that is still real: a corpus, a tokenizer, prepared data, a model, a finished run.

All of it takes about two seconds on one core. Each thing is made in the folder of a `Workshop` when it is first asked for.
"""

from __future__ import annotations

import random
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from picolm.data.tokenizer import TextTokenizer
    from picolm.model.contract import LanguageModel
    from picolm.records.rundir import RunDirectory
    from picolm.train.config import RunConfig

WORDS = ("the", "a", "cat", "dog", "bird", "sees", "likes", "hears", "big", "small", "red", "that", "runs", "sleeps", "and")
TOKENS_PER_ROW = 16
VOCABULARY = 320
SHAPE = {
    "d_model": 16,
    "n_layers": 2,
    "vocab_size": VOCABULARY,
    "max_seq_len": TOKENS_PER_ROW,
    "attention_n_heads": 2,
    "attention_n_kv_heads": 1,
    "activation_hidden_dim": 32,
}
"""A decoder of some 15,000 parameters."""


def sentences(count: int, seed: int) -> list[str]:
    """Sentences of a few words in random order: less than a nat per word to learn, and learnt within a few updates."""
    draw = random.Random(seed)
    return [" ".join(draw.choice(WORDS) for _ in range(draw.randint(4, 12))) + "." for _ in range(count)]


def merged(content: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """`content` with nested changes."""
    result = dict(content)
    for key, value in changes.items():
        both = isinstance(value, dict) and isinstance(result.get(key), dict)
        result[key] = merged(result[key], value) if both else value
    return result


def training_content(data: Path, runs: Path, name: str = "tiny") -> dict[str, Any]:
    """A training file as a mapping: eight updates of eight rows in two micro-batches, three snapshots on the way."""
    return {
        "data": {"dataset": {"name": str(data)}, "dataloader": {"batch_size": 8}},
        "model": dict(SHAPE),
        "training": {
            "max_steps": 8,
            "optimization": {"lr": 0.01, "lr_warmup_steps": 2, "gradient_accumulation_steps": 2},
            "fabric": {"precision": "32-true", "accelerator": "cpu"},
        },
        "checkpointing": {
            "runs_dir": str(runs),
            "run_name": name,
            "steps": [1, 2, 5],
            "learning_dynamics": {"eval_data": str(data), "eval_sequences": 6, "batch_size": 4},
        },
        "evaluation": {"metrics": None},
        "monitoring": {"logging": {"log_every_n_steps": 1}},
    }


class Workshop:
    """Makes tiny things in a folder, each once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @cached_property
    def data(self) -> Path:
        """Prepared data: rows of 17 tokens, a few hundred of them, and a val split."""
        from picolm.data.prepare import PrepareSettings, prepare
        from picolm.data.tokenizer import train_tokenizer

        for name, count, seed in (("train", 900, 0), ("val", 120, 1)):
            (self.folder / f"{name}.txt").write_text("\n".join(sentences(count, seed)), encoding="utf-8")
        tokenizer = train_tokenizer(iter(sentences(900, 0)), self.folder / "tokenizer", vocab_size=300)
        prepare(
            [str(self.folder / "train.txt")],
            tokenizer=tokenizer,
            out=self.folder / "data",
            settings=PrepareSettings(max_seq_len=TOKENS_PER_ROW),
            val_sources=[str(self.folder / "val.txt")],
        )
        return self.folder / "data"

    @property
    def texts(self) -> Path:
        """The val sentences as JSON lines, one document each."""
        import json

        path = self.folder / "texts.jsonl"
        lines = (json.dumps({"text": sentence}) for sentence in sentences(24, seed=1))
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")
        return path

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """The tokenizer of the data."""
        from picolm.data.sources import open_prepared
        from picolm.data.tokenizer import load_tokenizer

        file = open_prepared(self.data).tokenizer_file
        assert file is not None
        return load_tokenizer(file)

    def model(self, seed: int = 0) -> LanguageModel:
        """A decoder drawn from `seed`."""
        import torch

        from picolm.model.contract import build_model
        from picolm.model.decoder import DecoderConfig

        return build_model(DecoderConfig.model_validate(SHAPE), torch.Generator().manual_seed(seed))

    def content(self, name: str, **changes: Any) -> dict[str, Any]:
        """The content of a training file with nested changes: `content("mine", training={"method": ...})`."""
        return merged(training_content(self.data, self.folder / "runs", name), changes)

    def config(self, name: str, **changes: Any) -> RunConfig[Any]:
        """The same, resolved."""
        from picolm.train.config import parse_config

        return parse_config(self.content(name, **changes), f"{name}.yaml", default_name=name)

    @cached_property
    def run(self) -> RunDirectory:
        """A finished run: snapshots of every layer with all that can be captured, scores, and an analysis."""
        from picolm.analyze.config import AnalysisConfig
        from picolm.analyze.engine import analyze_run
        from picolm.base.config import parse_settings
        from picolm.records.rundir import RunDirectory
        from picolm.train.run import Silence
        from picolm.train.train import run_training

        dynamics = {"layer_suffixes": ["*"], "positions": "all", "ov_gradients": True, "moments": True, "micro_batch_norms": True}
        config = self.config("tiny", checkpointing={"learning_dynamics": dynamics}, evaluation={"metrics": ["perplexity"]})
        run_training(config, Silence())
        run = RunDirectory(self.folder / "runs" / "tiny")
        components = [{"name": "simple", "data_type": ["weights", "gradients"]}]
        analysis = {"analysis_name": "tiny", "metrics": ["gini", "per"], "components": components}
        analyze_run(run, parse_settings(AnalysisConfig, analysis, "tiny analysis"))
        return run
