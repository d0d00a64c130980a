"""One trainer in its own process, stepping only when told to: `python contenders.py NAME CELL.json`.

Every contender keeps its own loop, data path, logging and optimiser calls as its users get them. The clock is the same for all:
torch calls a hook after each `optimizer.step`, so a step lasts from one update to the next. The file needs torch and the
contender's own package only, because each contender may live in an environment of its own.

Protocol, on the original standard output: `ready` after the warm-up; then for every line on standard input
`<elapsed seconds> <processor seconds>` of `steps_per_turn` steps; at the end of input, the peak memory in MiB.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import torch
from torch.optim.optimizer import register_optimizer_step_post_hook

FOREVER = 1_000_000
"""Steps that no contender reaches."""
LEARNING_RATE, WEIGHT_DECAY, CLIP_NORM, LOG_EVERY = 3e-4, 0.1, 1.0, 10


def holds_a_model(optimizer: torch.optim.Optimizer) -> bool:
    """Whether it updates a model, and not the small stand-ins by which `pico train` foresees the size of a state."""
    return any(parameter.numel() > 1000 for group in optimizer.param_groups for parameter in group["params"])


class Gate:
    """Lets a training loop take `steps_per_turn` updates for each line on standard input, and times them."""

    def __init__(self, channel: Any, *, warm_up: int, steps_per_turn: int) -> None:
        self._channel = channel
        self._warm_up = warm_up
        self._steps_per_turn = steps_per_turn
        self._made = 0
        self._begun = (0.0, 0.0)

    def after_update(self, optimizer: torch.optim.Optimizer, *_: Any) -> None:
        """The hook: called by torch after every `optimizer.step`."""
        if not holds_a_model(optimizer):
            return
        self._made += 1
        timed = self._made - self._warm_up
        if timed < 0 or timed % self._steps_per_turn:
            return
        now = (time.perf_counter(), time.process_time())
        self._say(
            "ready" if timed == 0 else " ".join(str(after - before) for before, after in zip(self._begun, now, strict=True))
        )
        if not sys.stdin.readline():
            self._leave()
        self._begun = (time.perf_counter(), time.process_time())

    def _say(self, line: str) -> None:
        self._channel.write(line + "\n")
        self._channel.flush()

    def _leave(self) -> NoReturn:
        self._say(str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024))
        os._exit(0)


# ---- The contenders ----


def train_with_picolm(cell: SimpleNamespace, folder: Path) -> None:
    """`run_training`, as `pico train` calls it."""
    from picolm.train.config import parse_config
    from picolm.train.run import Silence
    from picolm.train.train import run_training

    content = {
        "data": {"dataset": {"name": cell.data}, "dataloader": {"batch_size": cell.sequences}},
        "model": {**cell.model, "max_seq_len": cell.length},
        "training": {
            "max_steps": FOREVER,
            "compile": cell.compiled,
            "optimization": {
                "lr": LEARNING_RATE,
                "weight_decay": WEIGHT_DECAY,
                "clip_norm": CLIP_NORM,
                "gradient_accumulation_steps": 1,
            },
            "fabric": {"precision": {"fp32": "32-true", "bf16": "bf16-mixed"}[cell.precision], "accelerator": "auto"},
        },
        "checkpointing": {"runs_dir": str(folder), "run_name": "run", "steps": [0], "learning_dynamics": {"enabled": False}},
        "evaluation": {"metrics": None},
        "monitoring": {"logging": {"log_every_n_steps": LOG_EVERY}},
    }
    run_training(parse_config(content, "benchmark", default_name="run"), Silence())


def train_bare(cell: SimpleNamespace, folder: Path) -> None:
    """The shortest loop around our decoder: no framework, no log, rows from memory."""
    from picolm.model.decoder import DecoderConfig, PicoDecoder
    from picolm.model.precision import cpu_multiplies

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = PicoDecoder(DecoderConfig(**cell.model, max_seq_len=cell.length)).to(device)
    call = torch.compile(model) if cell.compiled else model
    optimizer = torch.optim.AdamW(model.parameters(), lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY, fused=True)
    autocast = cell.precision == "bf16" and (device.type == "cuda" or cpu_multiplies(torch.bfloat16))  # as `pico train` does it
    for rows_BT in batches(cell):
        tokens_BT = rows_BT.to(device)
        with torch.autocast(device.type, torch.bfloat16, enabled=autocast):
            loss_sum = call(tokens_BT[:, :-1], labels_BT=tokens_BT[:, 1:])
        (loss_sum / tokens_BT[:, 1:].numel()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def train_with_transformers(cell: SimpleNamespace, folder: Path) -> None:
    """`transformers.Trainer` on `LlamaForCausalLM` with sdpa, rows from the same parquet through `datasets`."""
    from datasets import load_dataset
    from transformers import LlamaConfig, LlamaForCausalLM, Trainer, TrainingArguments

    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=cell.model["vocab_size"],
            hidden_size=cell.model["d_model"],
            intermediate_size=cell.model["activation_hidden_dim"],
            num_hidden_layers=cell.model["n_layers"],
            num_attention_heads=cell.model["attention_n_heads"],
            num_key_value_heads=cell.model["attention_n_kv_heads"],
            max_position_embeddings=cell.length,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
        )
    )
    rows = load_dataset("parquet", data_files=cell.shards, split="train", cache_dir=str(folder / "cache")).with_format("torch")

    def collate(examples: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
        tokens_BT = torch.stack([example["input_ids"] for example in examples])[:, :-1].long()
        return {"input_ids": tokens_BT, "labels": tokens_BT}  # the model shifts the labels itself

    arguments = TrainingArguments(
        output_dir=str(folder),
        max_steps=FOREVER,
        per_device_train_batch_size=cell.sequences,
        gradient_accumulation_steps=1,
        learning_rate=LEARNING_RATE,
        weight_decay=WEIGHT_DECAY,
        max_grad_norm=CLIP_NORM,
        optim="adamw_torch_fused",
        bf16=cell.precision == "bf16",
        torch_compile=cell.compiled,
        use_cpu=not torch.cuda.is_available(),
        logging_steps=LOG_EVERY,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
    )
    Trainer(model=model, args=arguments, train_dataset=rows, data_collator=collate).train()


def train_with_litgpt(cell: SimpleNamespace, folder: Path) -> None:
    """`litgpt.pretrain.setup` with its own model and losses. It always compiles; for eager, `torch.compile` does nothing."""
    from litgpt import Config, pretrain
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.data import DataModule

    class Rows(DataModule):
        """The same rows, from memory."""

        def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None, **_: Any) -> None:
            """Nothing to be told: the rows are cut already."""

        def train_dataloader(self) -> torch.utils.data.DataLoader:
            return torch.utils.data.DataLoader(rows_of(cell), batch_size=cell.sequences)

        val_dataloader = train_dataloader

    if not cell.compiled:
        torch.compile = lambda model, *_, **__: model
    model = cell.model
    config = Config(
        name="benchmark",
        block_size=cell.length,
        n_layer=model["n_layers"],
        n_embd=model["d_model"],
        n_head=model["attention_n_heads"],
        n_query_groups=model["attention_n_kv_heads"],
        intermediate_size=model["activation_hidden_dim"],
        padded_vocab_size=model["vocab_size"],
        vocab_size=model["vocab_size"],
        rotary_percentage=1.0,
        parallel_residual=False,
        bias=False,
        norm_class_name="RMSNorm",
        mlp_class_name="LLaMAMLP",
    )
    pretrain.setup(
        "benchmark",
        model_config=config,
        out_dir=folder,
        precision={"fp32": "32-true", "bf16": "bf16-mixed"}[cell.precision],
        data=Rows(),
        train=TrainArgs(
            save_interval=None,
            log_interval=LOG_EVERY,
            global_batch_size=cell.sequences,
            micro_batch_size=cell.sequences,
            max_tokens=FOREVER * cell.sequences * cell.length,
            max_norm=CLIP_NORM,
            lr_warmup_steps=100,
        ),
        eval=EvalArgs(interval=FOREVER, max_iters=1),
        optimizer={
            "class_path": "torch.optim.AdamW",
            "init_args": {"lr": LEARNING_RATE, "weight_decay": WEIGHT_DECAY},
        },
        devices=1,
        logger_name="csv",
    )


def rows_of(cell: SimpleNamespace) -> torch.Tensor:
    """All rows, int64 (rows, length + 1)."""
    import numpy

    return torch.from_numpy(numpy.load(cell.rows).astype("int64"))


def batches(cell: SimpleNamespace) -> Iterator[torch.Tensor]:
    """The rows in order, again and again, int64 (sequences, length + 1)."""
    rows = rows_of(cell)
    while True:
        yield from (batch for batch in rows.split(cell.sequences) if len(batch) == cell.sequences)


CONTENDERS = {
    "ours": train_with_picolm,
    "bare loop": train_bare,
    "transformers": train_with_transformers,
    "litgpt": train_with_litgpt,
}


def main(name: str, description: Path) -> None:
    """Run the contender behind the gate, with what it prints kept apart from the protocol."""
    cell = SimpleNamespace(**json.loads(description.read_text()))
    channel = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    torch.set_num_threads(cell.threads)
    torch.manual_seed(0)
    gate = Gate(channel, warm_up=cell.warm_up, steps_per_turn=cell.steps_per_turn)
    register_optimizer_step_post_hook(gate.after_update)
    with tempfile.TemporaryDirectory() as folder:
        CONTENDERS[name](cell, Path(folder))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
