from typing import Any

import torch.nn.functional as F
from torch import Tensor

from picolm.model.contract import Architecture, native_config
from picolm.model.decoder import DecoderConfig, PicoDecoder, SwiGLU
from picolm.model.original import native_layout
from picolm.records.snapshot import Layout


class SquaredReluConfig(DecoderConfig):
    """The shape of a decoder with a squared ReLU."""

    model_type: str = "squared_relu"
    """Architecture: a short name, `module:object` or `./file.py:object`."""


class SquaredReluLayer(SwiGLU):
    """w_2(relu(w_0 x)² * w_1 x)."""

    def forward(self, x_BTD: Tensor) -> Tensor:
        return self.w_2(F.relu(self.w_0(x_BTD)).square() * self.w_1(x_BTD))


class SquaredReluDecoder(PicoDecoder):
    """pico-decoder with a squared ReLU where it has a sigmoid-weighted unit (So et al., 2021)."""

    def __init__(self, config: SquaredReluConfig) -> None:
        super().__init__(config)
        for block in self.layers:
            block.swiglu = SquaredReluLayer(config)

    def layout(self) -> Layout:
        """No other library has this model: tensors are stored under their own names."""
        return native_layout(super().layout())

    def hf_config(self) -> dict[str, Any]:
        return native_config(self)


SQUARED_RELU = Architecture(SquaredReluConfig, SquaredReluDecoder)
