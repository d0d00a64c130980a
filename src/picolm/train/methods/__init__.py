"""Training methods: what one optimiser step computes. `plain` is the example to copy."""
