"""The activation cache in SAELens: a small sparse autoencoder is trained on it and opened again."""

import json
import sys
from importlib.metadata import version
from pathlib import Path

import torch
from datasets import load_from_disk
from sae_lens import SAE, LanguageModelSAERunnerConfig, LanguageModelSAETrainingRunner, LoggingConfig, StandardTrainingSAEConfig

folder, cache, hook, out = sys.argv[1:5]
stored = load_from_disk(cache)
context, width = stored.features[hook].shape
config = LanguageModelSAERunnerConfig(
    sae=StandardTrainingSAEConfig(d_in=width, d_sae=2 * width, l1_coefficient=0.01),
    model_name=folder,
    model_class_name="AutoModelForCausalLM",
    hook_name=hook,
    dataset_path=cache,
    use_cached_activations=True,
    cached_activations_path=cache,
    context_size=context,
    training_tokens=context * len(stored),
    train_batch_size_tokens=context,
    n_batches_in_buffer=4,
    store_batch_size_prompts=2,
    n_checkpoints=0,
    device="cpu",
    logger=LoggingConfig(log_to_wandb=False),
    checkpoint_path=str(Path(out) / "checkpoints"),
    output_path=str(Path(out) / "sae"),
)
# the text behind the activations: SAELens wants it for its own evaluation of the autoencoder
rows = stored.select_columns("token_ids").rename_column("token_ids", "input_ids")
LanguageModelSAETrainingRunner(config, override_dataset=rows).run()
again = SAE.load_from_disk(str(Path(out) / "sae"), device="cpu")
first = stored.with_format("torch")[0][hook]
with torch.no_grad():
    rebuilt = again(first)
print(
    json.dumps(
        {
            "version": version("sae-lens"),
            "class": type(again).__name__,
            "d_in": again.cfg.d_in,
            "finite": bool(rebuilt.isfinite().all()),
            "shape": list(rebuilt.shape),
        }
    )
)
