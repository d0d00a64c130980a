from picolm.optim.contract import Schedule


def inverse_sqrt(*, max_steps: int, warmup_steps: int, offset: int = 100) -> Schedule:
    """Warm-up, then down with the inverse square root of the updates since, `offset` added (Vaswani et al., 2017)."""

    def factor(step: int) -> float:
        if step < warmup_steps:
            return step / warmup_steps
        return (offset / (offset + step - warmup_steps)) ** 0.5

    return factor
