from torch import Tensor

from picolm import Undefined
from picolm.analyze.metrics.contract import metric


@metric("spectral_gap", needs="singular_values", bounds=(0.0, 1.0), invariant=("scale", "rotation", "transposition"))
def spectral_gap(sigma_R: Tensor, *, after: int = 1) -> float:
    """How far the spectrum falls after its first `after` values: 1 - σ[after + 1] / σ[after]. Undefined for a zero matrix."""
    if not 1 <= after < sigma_R.numel() or not sigma_R[after - 1] > 0:
        raise Undefined(f"there is no singular value after number {after}, or it is zero")
    return 1.0 - float(sigma_R[after] / sigma_R[after - 1])
