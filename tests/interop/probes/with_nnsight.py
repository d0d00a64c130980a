"""The folder in nnsight: logits and an activation inside."""

import json
import sys
from importlib.metadata import version

import torch
import transformers
from nnsight import NNsight
from safetensors.torch import load_file

folder, reference = sys.argv[1], load_file(sys.argv[2])
model = NNsight(transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval())
with torch.no_grad(), model.trace(reference["tokens"]):
    values = model.model.layers[1].self_attn.v_proj.output.save()
    logits = model.lm_head.output.save()
print(
    json.dumps(
        {
            "version": version("nnsight"),
            "logits": (logits - reference["logits"]).abs().max().item(),
            "values": (values - reference["values_layer_1"]).abs().max().item(),
        }
    )
)
