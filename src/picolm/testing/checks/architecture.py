"""What an architecture promises: next-token logits that see no future, a loss, a layout, and a folder that comes back."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F

from picolm.base.config import parse_settings
from picolm.base.errors import PicoError
from picolm.model.contract import Architecture, save_model
from picolm.model.folder import parameter_name
from picolm.records.rundir import CheckpointFolder
from picolm.records.snapshot import open_weights, read_layout
from picolm.testing.checks.architecture_subject import ROWS, TOKENS, ArchitectureSubject
from picolm.testing.checks.settings import SENTENCE, examine
from picolm.testing.findings import Broken, CheckList, Finding
from picolm.testing.streams import left_alone, seeded
from picolm.testing.tiny import SHAPE

ARCHITECTURE_PROMISES = CheckList("architecture", SENTENCE)
_promise = ARCHITECTURE_PROMISES.promise
TOLERANCE = 1e-4
"""Largest difference of logits in float32 that rounding explains."""
ROLES = {"query", "key", "value", "output", "gate", "up", "down", "embedding", "unembedding", "norm", "bias", "other"}


def check_architecture(architecture: Architecture, *, options: Mapping[str, Any] | None = None) -> list[Finding]:
    """What an architecture keeps of its promises.

    `options`: settings of a small model; those of the tiny decoder are used for whichever settings it shares.
    """
    chosen = dict(options or {})

    def subject() -> ArchitectureSubject:
        fields = architecture.config_class.model_fields
        shared = {name: value for name, value in SHAPE.items() if name in fields}
        content = {**shared, **chosen, "vocab_size": 64, "max_seq_len": 32}
        return ArchitectureSubject(architecture, chosen, parse_settings(architecture.config_class, content, "model"))

    return examine(ARCHITECTURE_PROMISES, architecture, chosen, subject)


@_promise(
    "each of its settings has a sentence",
    why="it is the help, the reference and the comment in the file of a new project.",
)
def _settings(subject: ArchitectureSubject) -> str:
    fields = subject.thing.config_class.model_fields
    silent = [name for name, field in fields.items() if not (field.description or "").strip()]
    if silent:
        raise Broken(f"no text stands under {', '.join(silent)}")
    return f"{len(fields)} settings"


@_promise(
    "it returns finite logits of shape (rows, tokens, vocabulary)",
    why="training, evaluation and generation read them by position.",
)
def _logits(subject: ArchitectureSubject) -> str:
    tokens_BT = subject.tokens()
    logits_BTV = subject.model()(tokens_BT).detach()
    expected = (*tokens_BT.shape, subject.config.vocab_size)
    if tuple(logits_BTV.shape) != expected:
        raise Broken(f"for tokens of shape {tuple(tokens_BT.shape)} it returns {tuple(logits_BTV.shape)}, not {expected}")
    if not torch.isfinite(logits_BTV).all():
        raise Broken("some logits are not finite")
    return f"{expected}"


@_promise(
    "no logit depends on a later token",
    why="a model that sees the token it is to predict reaches a loss of nothing and has learnt nothing.",
)
def _causal(subject: ArchitectureSubject) -> None:
    model, tokens_BT = subject.model(), subject.tokens()
    with torch.no_grad():
        before_BTV = model(tokens_BT)
        for position in (1, TOKENS // 2, TOKENS - 1):
            changed_BT = tokens_BT.clone()
            changed_BT[:, position] = (changed_BT[:, position] + 7) % subject.config.vocab_size
            difference = float((model(changed_BT) - before_BTV)[:, :position].abs().max())
            if difference > TOLERANCE:
                raise Broken(f"another token at position {position} changes earlier logits by {difference:.2g}")


@_promise(
    "every logit depends on the tokens before it",
    why="a model whose positions do not see each other can learn no more than the frequency of words.",
)
def _sees_context(subject: ArchitectureSubject) -> None:
    model, tokens_BT = subject.model(), subject.tokens()
    changed_BT = tokens_BT.clone()
    changed_BT[:, 0] = (changed_BT[:, 0] + 7) % subject.config.vocab_size
    with torch.no_grad():
        difference = float((model(changed_BT) - model(tokens_BT))[:, -1].abs().max())
    if difference == 0.0:
        raise Broken("another first token changes nothing at the last position")


@_promise(
    "a row is the same alone as in a batch",
    why="the size of a batch is a matter of memory; where rows see each other it changes the result.",
)
def _rows(subject: ArchitectureSubject) -> None:
    model, tokens_BT = subject.model(), subject.tokens()
    with torch.no_grad():
        difference = float((model(tokens_BT[1:2]) - model(tokens_BT)[1:2]).abs().max())
    if difference > TOLERANCE:
        raise Broken(f"the logits of a row differ by {difference:.2g} from those it has in a batch")


@_promise(
    "with labels it returns their cross-entropy, summed",
    why="the loss of a run is this sum over the tokens of the whole batch; a mean, or a label too many, changes it silently.",
)
def _loss(subject: ArchitectureSubject) -> str:
    model, tokens_BT = subject.model(), subject.tokens()
    inputs_BT, labels_BT = tokens_BT[:, :-1], tokens_BT[:, 1:].clone()
    labels_BT[0, :3] = -100
    with torch.no_grad():
        loss = model.loss_sum(inputs_BT, labels_BT)
        logits_NV = model(inputs_BT).double().flatten(0, 1)
    expected = float(F.cross_entropy(logits_NV, labels_BT.flatten(), reduction="sum", ignore_index=-100))
    if loss.ndim != 0:
        raise Broken(f"the loss has the shape {tuple(loss.shape)}, it is to be one number")
    if not math.isclose(float(loss), expected, rel_tol=1e-4):
        raise Broken(f"it returns {float(loss):.6g}; the summed cross-entropy of its own logits is {expected:.6g}")
    return f"{float(loss):.6g} for {int((labels_BT != -100).sum())} labels"


@_promise(
    "every parameter gets a finite gradient",
    why="a parameter that the loss does not reach is never trained, and looks in every analysis as if nothing happened.",
)
def _gradients(subject: ArchitectureSubject) -> None:
    model, tokens_BT = subject.model().train(), subject.tokens()
    torch.autograd.backward(model.loss_sum(tokens_BT[:, :-1], tokens_BT[:, 1:]))
    for name, parameter in model.named_parameters():
        if parameter.grad is None or not torch.isfinite(parameter.grad).all():
            raise Broken(f"{name} has {'no gradient' if parameter.grad is None else 'a gradient that is not finite'}")


@_promise(
    "it begins from the generator it is given, and from nothing else",
    why="`training.seeds.init` is to fix the initial weights, whatever else was drawn before.",
)
def _initial(subject: ArchitectureSubject) -> None:
    first, again, other = subject.model(seed=5), subject.model(seed=5), subject.model(seed=6)
    with torch.no_grad():
        for parameter in again.parameters():
            parameter.fill_(math.nan)
    with left_alone("draw from the generator that reset_parameters is given"), seeded(3):
        again.reset_parameters(torch.Generator().manual_seed(5))
    mine, theirs = dict(first.named_parameters()), dict(again.named_parameters())
    for name in mine:
        if torch.isnan(theirs[name]).any():
            raise Broken(f"reset_parameters leaves {name} as it was")
        if not torch.equal(mine[name], theirs[name]):
            raise Broken(f"two models from the same seed differ in {name}")
    if all(torch.equal(value, dict(other.named_parameters())[name]) for name, value in mine.items()):
        raise Broken("models of two seeds are the same")


@_promise(
    "drawing the weights leaves the random streams alone",
    why="a draw would shift dropout: two architectures under the same seeds would not be two arms of one comparison.",
)
def _leaves_streams_alone(subject: ArchitectureSubject) -> None:
    model = subject.model()
    with left_alone("draw from the generator that reset_parameters is given"):
        model.reset_parameters(torch.Generator().manual_seed(5))


@_promise(
    "its layout names every parameter and what it does",
    why="snapshots, components and other tools know a tensor by its plain name and role; what is missing is never analysed.",
)
def _layout(subject: ArchitectureSubject) -> str:
    model = subject.model()
    layout, parameters = model.layout(), dict(model.named_parameters(remove_duplicate=False))
    named = {parameter_name(name, place) for name, place in layout.tensors.items()}
    if missing := sorted(parameters.keys() - named):
        raise Broken(f"it does not name {', '.join(missing[:3])}")
    if unknown := sorted(named - parameters.keys()):
        raise Broken(f"it names {', '.join(unknown[:3])}, which the model does not have")
    if strange := sorted({place.role for place in layout.tensors.values()} - ROLES):
        raise Broken(f"the role {strange[0]!r} is not known; allowed: {', '.join(sorted(ROLES))}")
    for role, heads in (("query", layout.query_heads), ("key", layout.key_value_heads), ("value", layout.key_value_heads)):
        for name in layout.names_with_role(role):
            rows = parameters[f"{name}.weight"].shape[0]
            if rows != heads * layout.head_width:
                raise Broken(f"{name} has {rows} rows, the layout says {heads} heads of width {layout.head_width}")
    return f"{len(layout.tensors)} tensors"


@_promise(
    "a saved folder comes back as the same model",
    why="every checkpoint is such a folder: what it loses is lost.",
)
def _saved(subject: ArchitectureSubject) -> str:
    model, tokens_BT = subject.model(), subject.tokens()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "model"
        save_model(model, folder)
        again = subject.thing.from_folder(folder)
        layout = read_layout(folder)
        plain = dict(open_weights(CheckpointFolder(folder).weights, layout))
    expected = dict(model.named_parameters())
    for name, parameter in again.named_parameters():
        if not torch.equal(parameter, expected[name]):
            raise Broken(f"{name} is another tensor when the folder is loaded")
    for name, tensor in plain.items():
        if not torch.equal(
            tensor, dict(model.named_parameters(remove_duplicate=False))[parameter_name(name, layout.tensors[name])]
        ):
            raise Broken(f"layout.json leads for {name} to another tensor than the parameter")
    with torch.no_grad():
        if not torch.equal(again(tokens_BT), model(tokens_BT)):
            raise Broken("the loaded model computes other logits with the same weights")
    return f"{len(plain)} plain tensors"


@_promise(
    "left padding changes nothing",
    why="evaluation and generation pad rows of unequal length on the left and mark it with 0 in the mask.",
)
def _padding(subject: ArchitectureSubject) -> None:
    model, tokens_BT = subject.model(), subject.tokens()
    padding_BP = torch.zeros(ROWS, 4, dtype=torch.long)
    padded_BT = torch.cat([padding_BP, tokens_BT], dim=1)
    mask_BT = torch.cat([padding_BP, torch.ones_like(tokens_BT)], dim=1)
    with torch.no_grad():
        difference = float((model(padded_BT, attention_mask_BT=mask_BT)[:, 4:] - model(tokens_BT)).abs().max())
    if not difference < TOLERANCE:
        raise Broken(f"four tokens of padding change the logits of the text by {difference:.2g}")


@_promise(
    "with a cache it continues as without",
    why="generation and evaluation feed a text in pieces; the cache must stand for what was fed before.",
)
def _cache(subject: ArchitectureSubject) -> None:
    model, tokens_BT = subject.model(), subject.tokens()
    cache = model.new_cache()
    with torch.no_grad():
        whole_BTV = model(tokens_BT)
        pieces = [
            model(tokens_BT[:, :5], cache=cache),
            model(tokens_BT[:, 5:6], cache=cache),
            model(tokens_BT[:, 6:], cache=cache),
        ]
        difference = float((torch.cat(pieces, dim=1) - whole_BTV).abs().max())
    if not difference < TOLERANCE:
        raise Broken(f"fed in three pieces the logits differ by {difference:.2g}")


@_promise(
    "its size is known without making it",
    why="`pico plan` builds the model without storage, also one that does not fit this machine.",
)
def _without_storage(subject: ArchitectureSubject) -> str:
    with torch.device("meta"):
        model = subject.thing.model_class(subject.config)
    if any(not parameter.is_meta for parameter in model.parameters()):
        raise Broken("under torch.device('meta') some parameters have storage: make them without naming a device")
    count = sum(parameter.numel() for parameter in model.parameters())
    if count != sum(parameter.numel() for parameter in subject.model().parameters()):
        raise Broken("it has another number of parameters without storage than with")
    return f"{count:,} parameters"


@_promise(
    "a text longer than max_seq_len is refused",
    why="positions beyond what it was trained on give numbers that mean nothing.",
)
def _too_long(subject: ArchitectureSubject) -> None:
    tokens_BT = torch.ones(1, subject.config.max_seq_len + 1, dtype=torch.long)
    try:
        with torch.no_grad():
            subject.model()(tokens_BT)
    except PicoError:
        return
    except Exception as error:
        raise Broken(f"it raises {type(error).__name__}, not a PicoError that says which limit was passed") from error
    raise Broken(f"{subject.config.max_seq_len + 1} tokens are taken where max_seq_len is {subject.config.max_seq_len}")
