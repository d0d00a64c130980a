"""The folder as transformers opens it: class, logits, generation, tokenizer."""

import json
import sys

import torch
import transformers
from safetensors.torch import load_file

folder, reference = sys.argv[1], load_file(sys.argv[2])
model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
with torch.no_grad():
    logits = model(reference["tokens"]).logits
prompt = reference["prompt"]
generated = model.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=10, do_sample=False, pad_token_id=0)
padded = tokenizer(["the cat", "the cat sat on the mat"], return_tensors="pt", padding=True)
print(
    json.dumps(
        {
            "version": transformers.__version__,
            "class": type(model).__name__,
            "tokenizer": type(tokenizer).__name__,
            "logits": (logits - reference["logits"]).abs().max().item(),
            "generated": generated[0].tolist(),
            "eos": tokenizer.eos_token,
            "padded_inputs": sorted(padded),
            "padding_first": padded["attention_mask"][0, 0].item() == 0,
        }
    )
)
