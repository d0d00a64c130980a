"""The folder other tools open: `config.json`, `model.safetensors`, tokenizer files and our `layout.json`, written and read.

What is read here may come from anywhere. Names and shapes are compared with what the model expects before a tensor is
allocated; only safetensors are opened, so nothing can be executed.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.model.original import fabric_checkpoint, read_fabric_tensors
from picolm.records import durable
from picolm.records.rundir import CheckpointFolder
from picolm.records.snapshot import Layout, Placement, adjacent_to_halves, plain_tensor, write_layout

if TYPE_CHECKING:
    from picolm.model.contract import LanguageModel

Shape = tuple[int, ...]

END_OF_TEXT_TOKENS = ("<|endoftext|>", "<|end_of_text|>", "<eos>", "</s>")
MOST_TENSORS = 50_000
PICKLED_WEIGHTS = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl", "*.pickle")


# ---- Between parameters and stored tensors ----


def parameter_name(plain_name: str, place: Placement) -> str:
    """`layers.0.attention.v_proj` -> its parameter; a bias is its own plain name."""
    return plain_name if place.role == "bias" else f"{plain_name}.weight"


def stored_state(parameters: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """The parameters as stored tensors: rotary order applied, row ranges put in their places. Copies, on the CPU."""
    stored: dict[str, Tensor] = {}
    parts: dict[str, list[tuple[tuple[int, int], Tensor]]] = {}
    for name, place in layout.tensors.items():
        value = parameters[parameter_name(name, place)].detach()
        if place.rotary == "halves":
            value = adjacent_to_halves(value, layout.head_width)
        if place.rows is None:
            stored[place.tensor] = value.cpu().contiguous().clone()
        else:
            lengths = [stop - start for start, stop in place.rows]
            parts.setdefault(place.tensor, []).extend(zip(place.rows, torch.split(value.cpu(), lengths), strict=True))
    for tensor, pieces in parts.items():
        stored[tensor] = torch.cat([piece for _, piece in sorted(pieces, key=lambda item: item[0])]).contiguous()
    return stored


def stored_shapes(model: LanguageModel, layout: Layout) -> dict[str, Shape]:
    """Name -> shape of every tensor a folder of this model must hold; works on a model without storage."""
    parameters = dict(model.named_parameters(remove_duplicate=False))
    shapes: dict[str, Shape] = {}
    for name, place in layout.tensors.items():
        shape = tuple(parameters[parameter_name(name, place)].shape)
        if place.rows is not None:
            rows = max(stop for _, stop in place.rows)
            shape = (max(rows, shapes.get(place.tensor, (0,))[0]), *shape[1:])
        shapes[place.tensor] = shape
    return shapes


def copy_into(model: LanguageModel, stored: StoredTensors, layout: Layout) -> None:
    """Copy stored tensors into the model's parameters: own memory, so alignment is the same as after training."""
    parameters: dict[str, nn.Parameter] = dict(model.named_parameters(remove_duplicate=False))
    with torch.no_grad():
        for name, place in layout.tensors.items():
            parameters[parameter_name(name, place)].copy_(plain_tensor(stored[place.tensor], place, layout))


# ---- Reading ----


@dataclass(frozen=True)
class StoredTensors:
    """The tensors of a folder by name, each read when asked for."""

    folder: Path
    readers: Mapping[str, Callable[[], Tensor]]
    shapes: Mapping[str, Shape]

    def __getitem__(self, name: str) -> Tensor:
        return self.readers[name]()

    def check_against(self, expected: Mapping[str, Shape], *, ignored: str | None = None) -> None:
        """PicoError naming the first tensor that is missing, too much (unless it matches `ignored`), or of another shape."""
        missing = sorted(expected.keys() - self.shapes.keys())
        if missing:
            raise PicoError(
                f"{self.folder}: the weights lack {len(missing)} of {len(expected)} tensors, first {_shown(missing[0])}",
                "config.json does not describe these weights, or the file is cut short",
            )
        extra = sorted(self.shapes.keys() - expected.keys())
        if ignored is not None:
            extra = [name for name in extra if not re.search(ignored, name)]
        if extra:
            raise PicoError(
                f"{self.folder}: {len(extra)} tensors do not belong to the model, first {_shown(extra[0])}",
                "config.json does not describe these weights",
            )
        for name, shape in expected.items():
            if tuple(self.shapes[name]) != shape:
                raise PicoError(
                    f"{self.folder}: {_shown(name)} has shape {tuple(self.shapes[name])} where the model has {shape}",
                    "config.json does not describe these weights",
                )


def _shown(name: str) -> str:
    text = ascii(name)
    return text if len(text) <= 100 else text[:97] + "..."


def read_folder_config(folder: Path) -> dict[str, Any]:
    """The content of a folder's `config.json`."""
    path = CheckpointFolder(folder).model_config
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise PicoError(
            f"{folder} is not a model folder: it has no config.json", "give the folder that holds config.json"
        ) from error
    except (ValueError, OSError, RecursionError) as error:
        raise PicoError(f"{path} is not readable JSON: {str(error)[:200]}") from error
    if not isinstance(content, dict):
        raise PicoError(f"{path} does not hold an object")
    return content


def open_tensors(folder: Path) -> StoredTensors:
    """The tensors in `model.safetensors`, or in the files that `model.safetensors.index.json` lists."""
    fabric_file = fabric_checkpoint(folder)
    if fabric_file is not None and not CheckpointFolder(folder).weights.is_file():
        tensors = read_fabric_tensors(fabric_file)
        readers = {name: functools.partial(_same, tensor) for name, tensor in tensors.items()}
        return StoredTensors(folder, readers, {name: tuple(tensor.shape) for name, tensor in tensors.items()})
    return _open_files(folder, _weight_files(folder))


def _same(tensor: Tensor) -> Tensor:
    return tensor


def _open_files(folder: Path, paths: list[Path]) -> StoredTensors:
    readers: dict[str, Callable[[], Tensor]] = {}
    shapes: dict[str, Shape] = {}
    for path in paths:
        try:
            file = safe_open(path, framework="pt")
            names = file.keys()  # type: ignore[no-untyped-call]
            if len(names) > MOST_TENSORS:
                raise PicoError(f"{path} names {len(names)} tensors; no model here has more than {MOST_TENSORS}")
            for name in names:
                readers[name] = functools.partial(file.get_tensor, name)
                shapes[name] = tuple(file.get_slice(name).get_shape())  # type: ignore[no-untyped-call]
        except (SafetensorError, OSError, UnicodeError) as error:
            raise PicoError(f"{path} is not a readable safetensors file: {_shown(str(error))}") from error
    return StoredTensors(folder, readers, shapes)


def _weight_files(folder: Path) -> list[Path]:
    single = CheckpointFolder(folder).weights
    if single.is_file():
        return [single]
    index = folder / "model.safetensors.index.json"
    if index.is_file():
        return [folder / name for name in _listed_files(index)]
    pickled = sorted(path.name for pattern in PICKLED_WEIGHTS for path in folder.glob(pattern))
    if pickled:
        raise PicoError(
            f"{folder}: {pickled[0]} is a pickle, which can run code when opened; it is refused",
            "have its author save it as model.safetensors",
        )
    raise PicoError(f"{folder} has no model.safetensors", "give the folder of a saved model")


def _listed_files(index: Path) -> list[str]:
    try:
        names = sorted(set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PicoError(f"{index} is damaged: {_shown(str(error))}") from error
    for name in names:
        if not isinstance(name, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*\.safetensors", name):
            raise PicoError(f"{index} names a file outside its folder: {_shown(str(name))}")
        if not (index.parent / name).is_file():
            raise PicoError(f"{index.parent} lacks {name}, which model.safetensors.index.json lists")
    return names


def check_layer_count(content: Mapping[str, Any], stored: StoredTensors, folder: Path) -> None:
    """PicoError if `config.json` claims more layers than there are tensors, before a model of that size is laid out."""
    for key in ("num_hidden_layers", "n_layers"):
        layers = content.get(key)
        if isinstance(layers, int) and layers > len(stored.shapes):
            raise PicoError(f"{folder}: config.json has {key} = {layers}, the weights have only {len(stored.shapes)} tensors")


# ---- Writing ----


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    state: Mapping[str, Tensor],
    layout: Layout,
    tokenizer_file: Path | None,
    max_seq_len: int,
) -> None:
    """Write everything a model folder holds. The end of text of the tokenizer, if it has one, becomes eos in `config.json`."""
    folder.mkdir(parents=True, exist_ok=True)
    files = CheckpointFolder(folder)
    save_file(dict(state), files.weights, metadata={"format": "pt"})
    write_layout(folder, layout)
    end_of_text_id = None if tokenizer_file is None else write_tokenizer(folder, tokenizer_file, max_seq_len)
    durable.write_json(files.model_config, {**config, "eos_token_id": end_of_text_id})


def write_tokenizer(folder: Path, tokenizer_file: Path, max_seq_len: int) -> int | None:
    """Copy `tokenizer.json`, write `tokenizer_config.json` that transformers 4 and 5 read alike; the id of the end of text."""
    content = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    durable.write_bytes(CheckpointFolder(folder).tokenizer, tokenizer_file.read_bytes())
    added = {token["content"]: int(token["id"]) for token in content.get("added_tokens", [])}
    vocabulary = content.get("model", {}).get("vocab")
    known = {**(vocabulary if isinstance(vocabulary, dict) else {}), **added}
    kept = _kept_settings(tokenizer_file.parent / "tokenizer_config.json", known)
    end_of_text = kept.get("eos_token") or next((token for token in END_OF_TEXT_TOKENS if token in added), None)
    ours = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "model_max_length": max_seq_len,
        "model_input_names": ["input_ids", "attention_mask"],
        "clean_up_tokenization_spaces": False,
        "padding_side": "left",
        "eos_token": end_of_text,
        "pad_token": end_of_text,
    }
    durable.write_json(folder / "tokenizer_config.json", ours | kept)
    return None if end_of_text is None else int(known[end_of_text])


KEPT_TOKENS = ("bos_token", "eos_token", "pad_token", "unk_token", "sep_token", "cls_token", "mask_token")


def _kept_settings(file: Path, known: Mapping[str, int]) -> dict[str, str]:
    """What the settings beside a tokenizer say and we do not know better: its special tokens that exist, its chat template.

    A beginning of text that is not also the end of one is left out: no row of prepared data holds it, so the model has never
    seen it, and other tools would put it before every text. What names code is left out too.
    """
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (ValueError, OSError, RecursionError) as error:
        raise PicoError(f"{file} is not readable JSON: {str(error)[:200]}", "mend it, or delete it") from error
    if not isinstance(said, dict):
        return {}
    named = {key: value.get("content") if isinstance(value, dict) else value for key, value in said.items() if key in KEPT_TOKENS}
    kept = {key: value for key, value in named.items() if isinstance(value, str) and value in known}
    if kept.get("bos_token") != kept.get("eos_token"):
        kept.pop("bos_token", None)
    template = said.get("chat_template")
    return kept | ({"chat_template": template} if isinstance(template, str) else {})
