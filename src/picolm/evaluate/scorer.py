"""Log-probabilities of texts under a model. Token sequences come in, one summed log-probability each goes out.

Every built-in evaluation is arithmetic on these sums. Sequences are deduplicated, sorted by length and batched; the
output head runs only at positions that are read, once for sequences that share everything before such a position.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from types import TracebackType
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from picolm.base.errors import PicoError
from picolm.evaluate.batches import BatchLimits, batches_of, shared_start
from picolm.evaluate.head import LogitReader, vocabulary_of
from picolm.evaluate.processes import OneProcess, Processes, share_of
from picolm.evaluate.sharing import TokenSequence, positions_to_read
from picolm.model.contract import LanguageModel
from picolm.model.generation import KeyValueCache


class Tokenizer(Protocol):
    """What the scorer asks of a tokenizer; `picolm.data.tokenizer.TextTokenizer` is one."""

    @property
    def end_of_text_id(self) -> int | None: ...
    @property
    def vocab_size(self) -> int: ...
    def encode_batch(self, texts: Sequence[str], /) -> Sequence[Any]: ...
    def decode(self, ids: Any, /) -> str: ...


class SequenceScores(NamedTuple):
    """Of each sequence, in the order given."""

    log_probs: NDArray[np.float64]
    is_greedy: NDArray[np.bool_]
    """Whether greedy decoding would have given all its scored tokens."""


AUTOCAST = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
PRECISIONS = ("32-true", *AUTOCAST, "64-true", "bf16-true")
"""The last two for models whose parameters have that type already."""


class Scorer:
    """A model ready to score. Inside `with`, the model is in evaluation mode; afterwards it is as it was before."""

    def __init__(
        self,
        model: nn.Module,
        tokenizer: Tokenizer | None,
        *,
        device: torch.device | str | None = None,
        precision: str = "32-true",
        max_seq_len: int | None = None,
        prefix_token_id: int | None = None,
        batch_tokens: int | None = None,
        logit_bytes: int = 2**28,
        processes: Processes | None = None,
    ) -> None:
        """`prefix_token_id` stands before a text that nothing precedes; None: the tokenizer's end-of-text token.

        `batch_tokens` limits the tokens in a forward pass (None: 2,048 on a CPU, 65,536 elsewhere), `logit_bytes` its logits
        where a model makes them for every position; neither affects the scores. `processes` share the work; None: this one.
        """
        if precision not in PRECISIONS:
            raise PicoError(f"precision `{precision}` is not known", f"allowed: {', '.join(f'`{name}`' for name in PRECISIONS)}")
        self.model = model
        self.device = torch.device(device) if device is not None else _device_of(model)
        self.max_seq_len = max_seq_len or longest_sequence(model)
        self._tokenizer = tokenizer
        self._precision = precision
        self._prefix_token_id = prefix_token_id
        self._reader = LogitReader(model)
        rows = max(1, logit_bytes // (4 * vocabulary_of(model))) if self._reader.makes_all_logits else None
        self._limits = BatchLimits(batch_tokens or (2048 if self.device.type == "cpu" else 65536), rows)
        self._may_share = isinstance(model, LanguageModel) and type(model.new_cache()) is KeyValueCache
        takes_cache = "use_cache" in inspect.signature(model.forward).parameters
        self._forward_options = {"use_cache": False} if takes_cache else {}  # Hugging Face models fill one unless told not to
        self._processes: Processes = processes or OneProcess()
        self._training_modules: list[nn.Module] = []

    def __enter__(self) -> Scorer:
        self._training_modules = [module for module in self.model.modules() if module.training]
        self.model.eval()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for module in self._training_modules:
            module.training = True

    @property
    def tokenizer(self) -> Tokenizer:
        """The tokenizer; PicoError if the model came without one."""
        if self._tokenizer is None:
            raise PicoError("scoring text needs the model's tokenizer", "keep its tokenizer.json beside the model")
        return self._tokenizer

    @property
    def prefix_token_id(self) -> int:
        """The token that stands before a text which nothing precedes."""
        chosen = self.tokenizer.end_of_text_id if self._prefix_token_id is None else self._prefix_token_id
        if chosen is None:
            raise PicoError("the tokenizer has no end-of-text token to stand before a text", "give prefix_token_id")
        return chosen

    def settings(self) -> dict[str, Any]:
        """What every score of this scorer depends on."""
        prefix = None if self._tokenizer is None else self.prefix_token_id
        return {"precision": self._precision, "prefix_token_id": prefix, "max_seq_len": self.max_seq_len}

    def text_log_probs(self, texts: Sequence[str]) -> NDArray[np.float64]:
        """log p(text) for each text, the prefix token standing before it."""
        return self.log_probs([self.encode_after_prefix(tokens) for tokens in self.tokenizer.encode_batch(texts)])

    def continuation_log_probs(self, pairs: Sequence[tuple[str, str]]) -> NDArray[np.float64]:
        """log p(continuation | context) for each (context, continuation); see `encode_continuations`."""
        return self.log_probs([pair.sequence for pair in encode_continuations(self, pairs)])

    def encode_after_prefix(self, tokens: Any) -> TokenSequence:
        """The tokens of a text after the prefix token, unless they begin with it; all but the first are scored."""
        ids = np.asarray(tokens, dtype=np.int64)
        if len(ids) and ids[0] == self.prefix_token_id:
            return TokenSequence(ids)
        return TokenSequence(np.concatenate([[self.prefix_token_id], ids]))

    def log_probs(self, sequences: Sequence[TokenSequence]) -> NDArray[np.float64]:
        """Sum of log p(token | all before it) over the scored tokens of each sequence, in the order given."""
        return self.score(sequences).log_probs

    def score(self, sequences: Sequence[TokenSequence]) -> SequenceScores:
        """The sums, and whether each scored token was the most probable one at its place."""
        unique, index_of = _deduplicated(sequences)
        self._check(unique)
        sums_2N = np.zeros((2, len(unique)))
        with torch.no_grad(), self.autocast():
            for batch, counts in share_of(list(batches_of(unique, self._limits)), self._processes):
                found_2B = self._score([unique[index] for index in batch])
                if counts:
                    sums_2N[:, batch] = found_2B
        sums_2N = self._processes.sum(sums_2N)[:, index_of]
        return SequenceScores(sums_2N[0], sums_2N[1] == 0)

    def autocast(self) -> AbstractContextManager[Any]:
        """The arithmetic that was asked for, to be entered around a forward pass."""
        if self._precision not in AUTOCAST:
            return nullcontext()
        # Without the cache: weights cast here must not be found by an enclosing autocast that needs their gradients.
        return torch.autocast(self.device.type, dtype=AUTOCAST[self._precision], cache_enabled=False)

    def _check(self, sequences: Sequence[TokenSequence]) -> None:
        vocabulary = vocabulary_of(self.model)
        for tokens, start in sequences:
            assert start >= 1, "a token is scored given at least one before it"
            if len(tokens) - 1 > self.max_seq_len:
                raise PicoError(
                    f"a sequence of {len(tokens) - 1} tokens does not fit the model, which accepts {self.max_seq_len}",
                    "score it in windows",
                )
            if len(tokens) and not 0 <= int(tokens.min()) <= int(tokens.max()) < vocabulary:
                wrong = int(tokens.min()) if int(tokens.min()) < 0 else int(tokens.max())
                raise PicoError(
                    f"token id {wrong} is outside the model's vocabulary of {vocabulary}",
                    "use the tokenizer and the data that belong to the model",
                )

    def _score(self, batch: Sequence[TokenSequence]) -> NDArray[np.float64]:
        """(2, B): sum of log-probabilities, number of scored tokens that were not the most probable."""
        shared = shared_start(batch) if self._may_share else 0
        longest = max(len(tokens) for tokens, _ in batch) - 1 - shared
        inputs_BT = np.zeros((len(batch), longest), dtype=np.int64)
        for row, (tokens, _) in enumerate(batch):
            inputs_BT[row, : len(tokens) - 1 - shared] = tokens[shared:-1]
        reading = positions_to_read(batch, longest, shared)
        forward = self._forward(self._on_device(inputs_BT), self._on_device(batch[0].tokens[None, :shared]))
        found = self._reader.scores(forward, reading, self.device)
        by_sequence = (np.bincount(reading.sequence_of, each, len(batch)) for each in (found.log_probs, ~found.is_likeliest))
        return np.stack(list(by_sequence)).astype(np.float64)

    def _forward(self, tokens_BT: Tensor, shared_1T: Tensor) -> Callable[[], Any]:
        """The forward pass over a batch, after a start that all rows share. Padding stands to the right, where causal
        attention never looks, so no mask is needed.
        """
        if not shared_1T.numel():
            return lambda: self.model(tokens_BT, **self._forward_options)

        def after_shared_start() -> Any:
            assert isinstance(self.model, LanguageModel)
            cache = self.model.new_cache()
            self.model(shared_1T, cache=cache)
            for kept in (cache.keys, cache.values):
                kept[:] = [each.expand(len(tokens_BT), -1, -1, -1) for each in kept]
            return self.model(tokens_BT, cache=cache)

        return after_shared_start

    def _on_device(self, values: NDArray[np.integer[Any]]) -> Tensor:
        return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(self.device)


class Continuation(NamedTuple):
    """An encoded (context, continuation), and how many tokens of the context were cut off at the left."""

    sequence: TokenSequence
    cut_tokens: int


def encode_continuations(scorer: Scorer, pairs: Sequence[tuple[str, str]]) -> list[Continuation]:
    """Token sequences of (context, continuation) pairs, only the continuation being scored.

    Both are encoded as one text, so that tokens may not match the seam; the continuation is what follows as many tokens as
    the context alone has. Spaces at the end of a context belong to the continuation. A context too long for the model loses
    its beginning; a continuation too long is a PicoError. The same rules as in lm-eval.
    """
    seams = [_move_spaces(*pair) for pair in pairs]
    contexts = list(dict.fromkeys(context for context, _ in seams))
    context_length = dict(zip(contexts, map(len, scorer.tokenizer.encode_batch(contexts)), strict=True))
    wholes = scorer.tokenizer.encode_batch([context + continuation for context, continuation in seams])
    encoded = []
    for (context, continuation), whole in zip(seams, wholes, strict=True):
        sequence = TokenSequence(np.asarray(whole, dtype=np.int64), context_length[context])
        if not context:
            sequence = scorer.encode_after_prefix(whole)
        scored = len(sequence.tokens) - sequence.start
        if scored > scorer.max_seq_len:
            raise PicoError(
                f"the continuation {continuation[:40]!r} has {scored} tokens; the model accepts {scorer.max_seq_len}",
                "use a model with a longer context, or leave the item out with `limit`",
            )
        cut = max(0, len(sequence.tokens) - 1 - scorer.max_seq_len)
        encoded.append(Continuation(TokenSequence(sequence.tokens[cut:], sequence.start - cut), cut))
    return encoded


def _move_spaces(context: str, continuation: str) -> tuple[str, str]:
    kept = context.rstrip()
    return kept, context[len(kept) :] + continuation


def longest_sequence(model: nn.Module) -> int:
    """The longest sequence a model accepts, from itself or from its configuration."""
    own = getattr(model, "max_seq_len", None)
    config = getattr(model, "config", None)
    names = ("max_seq_len", "max_position_embeddings", "n_positions", "n_ctx", "max_sequence_length")
    for value in (own, *(getattr(config, name, None) for name in names)):
        if isinstance(value, int) and 0 < value < 2**30:
            return value
    raise PicoError("the model does not say how long a sequence may be", "give max_seq_len")


def _device_of(model: nn.Module) -> torch.device:
    return next((parameter.device for parameter in model.parameters()), torch.device("cpu"))


def _deduplicated(sequences: Sequence[TokenSequence]) -> tuple[list[TokenSequence], NDArray[np.int64]]:
    """Each distinct sequence once, and for every sequence given the index of its like: equal input, equal score."""
    number_of: dict[tuple[bytes, int], int] = {}
    unique: list[TokenSequence] = []
    index_of = np.empty(len(sequences), dtype=np.int64)
    for index, (tokens, start) in enumerate(sequences):
        ids = np.ascontiguousarray(tokens, dtype=np.int64)
        key = (ids.tobytes(), start)
        if key not in number_of:
            number_of[key] = len(unique)
            unique.append(TokenSequence(ids, start))
        index_of[index] = number_of[key]
    return unique, index_of
