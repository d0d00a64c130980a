"""The folder in TransformerLens: logits, cached values, OV matrices."""

import json
import sys
from importlib.metadata import version

import torch
from safetensors.torch import load_file
from transformer_lens.model_bridge import TransformerBridge

folder, reference = sys.argv[1], load_file(sys.argv[2])
bridge = TransformerBridge.boot_transformers(folder, device="cpu")
with torch.no_grad():
    logits, cache = bridge.run_with_cache(reference["tokens"])
ov_LHDD = bridge.OV.AB
values = cache["blocks.1.attn.hook_v"]
print(
    json.dumps(
        {
            "version": version("transformer-lens"),
            "logits": (logits - reference["logits"]).abs().max().item(),
            "ov_shape": list(ov_LHDD.shape),
            "ov": (ov_LHDD.transpose(-1, -2) - reference["ov_LHDD"]).abs().max().item(),
            "values": (values.reshape(*values.shape[:2], -1) - reference["values_layer_1"]).abs().max().item(),
        }
    )
)
