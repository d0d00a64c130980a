"""What each built-in metric means, in words: the report must say so without importing the code that computes it (torch)."""

from __future__ import annotations

TITLES = {
    "gini": "Gini coefficient",
    "hoyer": "Hoyer sparsity",
    "per": "Proportional effective rank",
    "condition_number": "Condition number",
    "norm": "Norm",
    "cka": "CKA",
    "pwcca": "PWCCA",
}

METRICS = {
    "gini": "inequality of the magnitudes; 0 when all entries are equally large, towards 1 when few entries carry all.",
    "hoyer": "sparsity (√n − ‖x‖₁ / ‖x‖₂) / (√n − 1) over n entries: 0 when all magnitudes are equal, 1 for a single one.",
    "per": "exp(entropy of the singular-value shares) divided by the number of singular values: 1 "
    "when all directions carry equal weight.",
    "condition_number": "the largest over the smallest singular value: large when a direction is nearly lost.",
    "norm": "matrix norm of the kind named in brackets: Frobenius (root of the sum of squares), nuclear (sum of the singular "
    "values) or infinity (largest absolute row sum).",
    "cka": "linear centred kernel alignment of two sets of activations of the same samples: 1 when they agree up to rotation "
    "and scale.",
    "pwcca": "projection-weighted canonical correlation of two sets of activations of the same samples: 1 when each is a linear "
    "function of the other.",
}


def metric_name(name: str) -> str:
    """The name of a metric in a title."""
    words = name.replace("_", " ")
    return TITLES.get(name, words[:1].upper() + words[1:])


def describe_metric(name: str) -> str:
    """One paragraph on a metric; a foreign one is named as such."""
    text = METRICS.get(name, "a metric from outside this package; see the documentation of whoever provides it.")
    return f"{metric_name(name)}: {text}"
