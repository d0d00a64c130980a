"""Leave for other tools, and show that nothing was lost: each export is opened again and its logits compared.

`llama` writes the Hugging Face folder, `pytorch` the parameters under their own names, `sae-cache` activations in the form in
which SAELens takes them for training. `cli/export.py` finds checkpoint, text and data, and prints what comes out.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from picolm.base.errors import PicoError, suggestion
from picolm.model.contract import LanguageModel, load_model, native_config, save_model
from picolm.model.folder import read_folder_config, write_folder
from picolm.model.original import native_layout

LARGEST_DIFFERENCE = 1e-3
"""Logits of an export that differ by more mean that it is wrong, whatever the arithmetic of the other library."""


class Parity(NamedTuple):
    """Largest absolute difference between a reader's values and ours."""

    reader: str
    difference: float


def export_llama(model: LanguageModel, out: Path, tokenizer_file: Path | None, tokens_BT: Tensor) -> list[Parity]:
    """Write the Hugging Face folder; logits as picolm and, where it is installed, transformers read it back."""
    save_model(model, out, tokenizer_file)
    return checked(
        [
            _parity("picolm", load_model(out, model.config.model_type), model, tokens_BT),
            *_transformers_parity(model, out, tokens_BT),
        ]
    )


def export_pytorch(model: LanguageModel, out: Path, tokenizer_file: Path | None, tokens_BT: Tensor) -> list[Parity]:
    """Write the parameters under their own names, rows in adjacent pairs: `load_state_dict` takes the file as it is."""
    state = {name: parameter.detach().cpu().clone() for name, parameter in model.named_parameters()}
    write_folder(out, native_config(model), state, native_layout(model.layout()), tokenizer_file, model.max_seq_len)
    return checked([_parity("picolm", load_model(out, model.config.model_type), model, tokens_BT)])


def checked(parities: list[Parity]) -> list[Parity]:
    """The same, unless one of them is too large: then the export is not what it should be."""
    for parity in parities:
        if not parity.difference <= LARGEST_DIFFERENCE:
            raise PicoError(
                f"the export does not agree: {parity.reader} reads logits that differ by {parity.difference:.3g}",
                "do not use the folder that was written; please report the model's config.json",
            )
    return parities


@torch.no_grad()
def _parity(reader: str, theirs: nn.Module, ours: LanguageModel, tokens_BT: Tensor) -> Parity:
    output = theirs(tokens_BT)
    logits_BTV = output if isinstance(output, Tensor) else output.logits
    return Parity(reader, float((logits_BTV - ours(tokens_BT)).abs().max()))


def _transformers_parity(model: LanguageModel, out: Path, tokens_BT: Tensor) -> list[Parity]:
    theirs = _in_transformers(out)
    return [] if theirs is None else [_parity(theirs.name, theirs.model, model, tokens_BT)]


class _Transformers(NamedTuple):
    name: str
    model: Any


def _in_transformers(folder: Path) -> _Transformers | None:
    """The folder opened by transformers; None where that is not installed, or has no such class."""
    try:
        import transformers
    except ImportError:
        return None
    if not hasattr(transformers, _hf_class(folder)):
        return None
    library: Any = transformers
    library.utils.logging.disable_progress_bar()
    opened = library.AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
    return _Transformers(f"transformers {library.__version__}", opened)


def _hf_class(folder: Path) -> str:
    return str((read_folder_config(folder).get("architectures") or [""])[0])


# ---- SAELens ----


@dataclass(frozen=True)
class Hook:
    """A place in the model: its module name here, and the module of the Hugging Face class with the same output."""

    module: str
    hf_module: str


def find_hook(model: LanguageModel, module: str) -> Hook:
    """The place named by a block (`layers.3`) or a plain name (`layers.3.swiglu.w_2`), with its Hugging Face name."""
    layout = model.layout()
    blocks = {name for name, _ in model.named_modules() if name.startswith("layers.") and name.count(".") == 1}
    if module in blocks:
        inside = next(place.tensor for name, place in layout.tensors.items() if name.startswith(module + "."))
        head, found, _ = inside.partition(f"{module}.")
        return Hook(module, f"{head}{module}" if found else module)
    place = layout.tensors.get(module)
    if place is None or place.role == "bias":
        raise PicoError(f"--module {module}: there is no such module", suggestion(module, blocks | layout.tensors.keys()))
    if place.rotary is not None or place.rows is not None:
        raise PicoError(
            f"--module {module}: the Hugging Face class gives these outputs in another order, or fused with others",
            "name a block, such as `layers.0`, or a value, output or feed-forward module",
        )
    return Hook(module, place.tensor.removesuffix(".weight"))


@torch.no_grad()
def activations(model: LanguageModel, hook: Hook, tokens_BT: Tensor) -> Tensor:
    """(B, T, width) outputs of a module."""
    seen: list[Tensor] = []
    handle = model.get_submodule(hook.module).register_forward_hook(lambda _module, _inputs, output: seen.append(output))
    try:
        model(tokens_BT)
    finally:
        handle.remove()
    return seen[0].float().cpu()


def export_sae_cache(model: LanguageModel, out: Path, hook: Hook, tokens_NT: Tensor, batch_sequences: int) -> list[Parity]:
    """Write a datasets folder that SAELens takes as `cached_activations_path`: a column named like the hook, and `token_ids`."""
    try:
        import datasets
    except ImportError as error:
        raise PicoError("--to sae-cache needs the library datasets", 'install it with: pip install "picolm[hf]"') from error
    width = activations(model, hook, tokens_NT[:1, :1]).shape[-1]
    context = tokens_NT.shape[1]
    features = datasets.Features(
        {
            hook.hf_module: datasets.Array2D(shape=(context, width), dtype="float32"),
            "token_ids": datasets.Sequence(datasets.Value("int32"), length=context),
        }
    )

    def rows() -> Iterator[dict[str, Any]]:
        for tokens_BT in torch.split(tokens_NT, batch_sequences):
            for values_TD, ids_T in zip(activations(model, hook, tokens_BT), tokens_BT, strict=True):
                yield {hook.hf_module: values_TD.numpy(), "token_ids": ids_T.tolist()}

    datasets.disable_progress_bars()
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        dataset = datasets.Dataset.from_generator(rows, features=features, cache_dir=scratch)
        dataset.save_to_disk(str(out))
    return _cache_parity(model, out, hook, tokens_NT[:1])


def _cache_parity(model: LanguageModel, out: Path, hook: Hook, tokens_1T: Tensor) -> list[Parity]:
    """The stored first row against a fresh pass here and, where it is installed, against transformers at that module."""
    import datasets

    stored_TD = datasets.load_from_disk(str(out)).with_format("torch")[0][hook.hf_module]
    parities = [Parity("picolm", float((stored_TD - activations(model, hook, tokens_1T)[0]).abs().max()))]
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        theirs = _in_transformers(Path(folder))
        if theirs is not None:
            seen: list[Any] = []
            theirs.model.get_submodule(hook.hf_module).register_forward_hook(lambda _m, _i, output: seen.append(output))
            with torch.no_grad():
                theirs.model(tokens_1T)
            value_BTD = seen[0] if isinstance(seen[0], Tensor) else seen[0][0]
            parities.append(Parity(theirs.name, float((value_BTD[0] - stored_TD).abs().max())))
    return checked(parities)
