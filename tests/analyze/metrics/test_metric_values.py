"""Each metric against independent code: another library, brute force, or a closed form."""

from __future__ import annotations

import contextlib
import math

import numpy as np
import pytest
import scipy.linalg
import scipy.spatial
import scipy.stats
import torch
from sklearn.neighbors import NearestNeighbors

from picolm.analyze.components.contract import Piece
from picolm.analyze.matrix import Matrix, Product
from picolm.analyze.metrics.contract import METRICS, find_metric, metric_function
from picolm.analyze.null import null_value
from picolm.base.errors import PicoError, Undefined

RNG = np.random.default_rng(11)
X = RNG.standard_normal((60, 7))
Y = X @ RNG.standard_normal((7, 5)) + 0.7 * RNG.standard_normal((60, 5))
TX, TY = torch.from_numpy(X), torch.from_numpy(Y)


def of(name: str, *tensors: torch.Tensor, **options: object) -> float:
    return metric_function(name)(*tensors, **options)


def test_gini_equals_the_mean_absolute_difference() -> None:
    magnitude = np.abs(X).ravel()
    differences = np.abs(magnitude[:, None] - magnitude[None, :]).sum()
    assert of("gini", TX) == pytest.approx(differences / (2 * magnitude.size**2 * magnitude.mean()), rel=1e-12)


def test_hoyer_of_k_equal_entries_is_known() -> None:
    vector = torch.tensor([1.0] * 9 + [0.0] * 91)
    assert of("hoyer", vector) == pytest.approx((10 - 3) / 9, rel=1e-12)


def test_per_of_a_rank_one_matrix_is_one_over_its_size() -> None:
    assert of("per", torch.outer(torch.arange(1.0, 5.0), torch.ones(4))) == pytest.approx(1 / 4)


def test_effective_rank_equals_exponential_entropy_of_scipy() -> None:
    sigma = scipy.linalg.svdvals(X)
    assert of("effective_rank", TX) == pytest.approx(math.exp(scipy.stats.entropy(sigma)), rel=1e-12)
    share = sigma / sigma.sum() + 1e-7
    assert of("rankme", TX) == pytest.approx(math.exp(-(share * np.log(share)).sum()), rel=1e-12)


def test_ranks_of_a_flat_spectrum_equal_its_size() -> None:
    flat = torch.linalg.qr(torch.randn(20, 8, dtype=torch.float64)).Q
    for name in ("effective_rank", "stable_rank", "participation_ratio", "rankme"):
        assert of(name, flat) == pytest.approx(8, rel=1e-5)


def test_stable_rank_and_participation_ratio_equal_their_traces() -> None:
    eigenvalues = np.linalg.eigvalsh(X.T @ X)
    assert of("stable_rank", TX) == pytest.approx(eigenvalues.sum() / eigenvalues.max(), rel=1e-12)
    assert of("participation_ratio", TX) == pytest.approx(eigenvalues.sum() ** 2 / (eigenvalues**2).sum(), rel=1e-12)
    of_covariance = np.linalg.eigvalsh(np.cov(X.T))
    expected = of_covariance.sum() ** 2 / (of_covariance**2).sum()
    assert of("participation_ratio", TX, centred=True) == pytest.approx(expected, rel=1e-12)


def test_condition_number_and_norms_equal_numpy() -> None:
    assert of("condition_number", TX) == pytest.approx(np.linalg.cond(X), rel=1e-12)
    orders = {"frobenius": "fro", "nuclear": "nuc", "spectral": 2, "inf": np.inf, "one": 1}
    for norm_type, order in orders.items():
        assert of("norm", TX, norm_type=norm_type) == pytest.approx(np.linalg.norm(X, order), rel=1e-12)
    assert of("norm", TX, norm_type="max") == np.abs(X).max()


def test_condition_number_of_singular_matrices_gives_the_rank() -> None:
    with pytest.raises(Undefined, match="numerical rank 7 of 60"):
        of("condition_number", torch.from_numpy(X @ X.T))


def hsic_unbiased(k: np.ndarray, l: np.ndarray) -> float:  # noqa: E741
    """Song et al. (2012), equation 5, with matrices of samples by samples."""
    n = len(k)
    k, l = k - np.diag(np.diag(k)), l - np.diag(np.diag(l))  # noqa: E741
    total = np.trace(k @ l) + k.sum() * l.sum() / ((n - 1) * (n - 2)) - 2 / (n - 2) * (k @ l).sum()
    return float(total / (n * (n - 3)))


def test_cka_equals_hsic_of_full_kernels() -> None:
    n = len(X)
    centre = np.eye(n) - 1 / n
    k, l = centre @ X @ X.T @ centre, centre @ Y @ Y.T @ centre  # noqa: E741
    assert of("cka", TX, TY) == pytest.approx((k * l).sum() / np.sqrt((k * k).sum() * (l * l).sum()), rel=1e-12)
    terms = [hsic_unbiased(a @ a.T, b @ b.T) for a, b in ((X, Y), (X, X), (Y, Y))]
    assert of("cka", TX, TY, debiased=True) == pytest.approx(terms[0] / math.sqrt(terms[1] * terms[2]), rel=1e-12)


def test_minibatch_cka_averages_terms_before_dividing() -> None:
    batches = [slice(start, start + 25) for start in (0, 25, 50)]
    terms = np.mean([[hsic_unbiased(a[b] @ a[b].T, c[b] @ c[b].T) for a, c in ((X, Y), (X, X), (Y, Y))] for b in batches], axis=0)
    expected = terms[0] / math.sqrt(terms[1] * terms[2])
    assert of("minibatch_cka", TX, TY, batch_samples=25) == pytest.approx(expected, rel=1e-12)
    assert of("minibatch_cka", TX, TY, batch_samples=60) == pytest.approx(of("cka", TX, TY, debiased=True), rel=1e-12)


def test_debiased_cka_of_unrelated_data_is_zero_where_the_biased_one_is_not() -> None:
    draws = [(torch.randn(64, 48, dtype=torch.float64), torch.randn(64, 48, dtype=torch.float64)) for _ in range(40)]
    assert np.mean([of("cka", a, b, debiased=True) for a, b in draws]) == pytest.approx(0.0, abs=0.02)
    expected = 48 / (64 + 48)
    assert np.mean([of("cka", a, b) for a, b in draws]) == pytest.approx(expected, rel=0.05)


def canonical_variates(data: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Correlations and unit variates of `data`, from the eigenproblem of covariances: the way we do not compute them."""
    x, y = data - data.mean(0), other - other.mean(0)
    across = x.T @ y
    squared, weights = scipy.linalg.eigh(across @ np.linalg.solve(y.T @ y, across.T), x.T @ x)
    variates = x @ weights[:, ::-1][:, :5]
    return np.sqrt(squared[::-1][:5]), variates / np.linalg.norm(variates, axis=0)


def test_cca_equals_the_eigenproblem_of_covariances() -> None:
    assert of("cca", TX, TY) == pytest.approx(canonical_variates(X, Y)[0].mean(), rel=1e-9)


def test_pwcca_weights_correlations_by_the_neurons_of_one_side() -> None:
    for direction, data, other in (("x", X, Y), ("y", Y, X)):
        correlations, variates = canonical_variates(data, other)
        weights = np.abs(variates.T @ (data - data.mean(0))).sum(1)
        expected = (weights * correlations).sum() / weights.sum()
        assert of("pwcca", TX, TY, direction=direction) == pytest.approx(expected, rel=1e-9)
    assert of("pwcca", TX, TY) == of("pwcca", TX, TY, direction="y")


def test_svcca_keeps_the_directions_that_hold_the_variance() -> None:
    kept = []
    for data in (X, Y):
        left, sigma, _ = np.linalg.svd(data - data.mean(0), full_matrices=False)
        kept.append(left[:, : int(np.argmax(np.cumsum(sigma**2) / (sigma**2).sum() >= 0.8)) + 1])
    expected = np.cos(scipy.linalg.subspace_angles(*kept)).mean()
    assert of("svcca", TX, TY, variance_share=0.8) == pytest.approx(expected, rel=1e-9)
    assert of("svcca", TX, TY, variance_share=1.0) == pytest.approx(of("cca", TX, TY), rel=1e-12)


def test_procrustes_angle_equals_scipy_disparity() -> None:
    y = RNG.standard_normal(X.shape) + X
    disparity = scipy.spatial.procrustes(X, y)[2]  # 1 - (sum of singular values)^2 after unit size
    assert of("procrustes_angle", TX, torch.from_numpy(y)) == pytest.approx(math.acos(math.sqrt(1 - disparity)), rel=1e-9)


def test_mutual_knn_equals_scikit_learn_neighbours() -> None:
    sets = []
    for data in (X, Y):
        model = NearestNeighbors(n_neighbors=4, metric="cosine", algorithm="brute").fit(data)
        sets.append(model.kneighbors(return_distance=False))
    expected = np.mean([len(set(a) & set(b)) / 4 for a, b in zip(*sets, strict=True)])
    assert of("mutual_knn", TX, TY, neighbours=4) == pytest.approx(expected, rel=1e-12)


def test_kurtosis_equals_scipy() -> None:
    assert of("kurtosis", TX) == pytest.approx(scipy.stats.kurtosis(X, axis=0, fisher=False).mean(), rel=1e-12)
    assert of("kurtosis", TX, over="units") == pytest.approx(scipy.stats.kurtosis(X, axis=1, fisher=False).mean(), rel=1e-12)
    assert of("kurtosis", TX, over="entries") == pytest.approx(scipy.stats.kurtosis(X, axis=None, fisher=False), rel=1e-12)


def test_planted_dead_and_outlier_units_are_counted() -> None:
    planted = TX.clone()
    planted[:, 2] = 0
    planted[:, 4] *= 100
    assert of("dead_units", planted) == pytest.approx(1 / 7)
    assert of("outlier_channels", planted) == pytest.approx(1 / 7)


def test_cosine_and_sign_agreement_by_brute_force() -> None:
    other = torch.from_numpy(RNG.standard_normal(X.shape))
    expected = np.corrcoef(
        np.concatenate([X.ravel(), -X.ravel()]), np.concatenate([other.numpy().ravel(), -other.numpy().ravel()])
    )
    assert of("cosine", TX, other) == pytest.approx(expected[0, 1], rel=1e-9)
    agreeing = sum(a * b > 0 for a, b in zip(X.ravel(), other.numpy().ravel(), strict=True))
    assert of("sign_agreement", TX, other) == pytest.approx(agreeing / X.size)


def test_relative_size_by_both_norms() -> None:
    update = torch.from_numpy(RNG.standard_normal(X.shape) * 1e-3)
    assert of("relative_size", update, TX) == pytest.approx(np.linalg.norm(update) / np.linalg.norm(X))
    expected = np.linalg.norm(update, 2) / np.linalg.norm(X, 2)
    assert of("relative_size", update, TX, norm_type="spectral") == pytest.approx(expected)


NULLS = [
    ("gini", {}, (80, 60), 0.02),
    ("hoyer", {}, (80, 60), 0.03),
    ("per", {}, (60, 60), 0.02),
    ("per", {}, (30, 120), 0.02),
    ("effective_rank", {}, (96, 64), 0.02),
    ("rankme", {}, (96, 64), 0.02),
    ("stable_rank", {}, (100, 60), 0.08),
    ("participation_ratio", {}, (50, 30), 0.03),
    ("participation_ratio", {"centred": True}, (50, 30), 0.03),
    ("kurtosis", {}, (40, 200), 0.03),
]


@pytest.mark.parametrize(("name", "options", "shape", "tolerance"), NULLS)
def test_nulls_are_what_gaussian_noise_gives(
    name: str, options: dict[str, object], shape: tuple[int, int], tolerance: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(10)]
    measured = np.mean([of(name, draw, **options) for draw in draws])
    metric = find_metric(name, dict(options), "test")
    assert null_value(metric, Matrix(lambda: draws[0]), None) == pytest.approx(measured, rel=tolerance)


def test_null_of_a_product_is_that_of_a_product_of_noise() -> None:
    left, right = torch.randn(40, 5), torch.randn(5, 50)
    metric = find_metric("per", {}, "test")
    null = null_value(metric, Matrix(lambda: Product(left, right)), None)
    assert null == pytest.approx(of("per", left.double() @ right.double()), rel=0.1)
    assert null is not None and null < 0.13


def test_null_of_a_similarity_keeps_both_sides_and_breaks_their_pairing() -> None:
    metric = find_metric("cka", {}, "test")
    null = null_value(metric, Matrix(lambda: TX), Matrix(lambda: TY))
    orders = [torch.randperm(60, generator=torch.Generator().manual_seed(seed)) for seed in range(3)]
    assert null == pytest.approx(np.mean([of("cka", TX, TY[order]) for order in orders]), rel=1e-12)
    for name in ("pwcca", "procrustes_angle", "svcca", "minibatch_cka", "cca"):
        found, one, two = find_metric(name, {}, "test"), Matrix(lambda: TX), Matrix(lambda: TY)
        found.value(one, two)  # fills what permuted copies carry along
        fresh = np.mean([of(name, TX, TY[order]) for order in orders])
        assert null_value(found, one, two) == pytest.approx(fresh, rel=1e-9)


def test_inputs_that_no_metric_can_read_are_undefined() -> None:
    for tensor, reason in (
        (torch.tensor([[1.0, float("nan")]]), "not finite"),
        (torch.zeros(2, 2, 2), "is not a matrix"),
        (torch.zeros(0, 3), "is not a matrix"),
    ):
        with pytest.raises(Undefined, match=reason):
            of("norm", tensor, norm_type="max")


def test_number_of_tensors_is_checked() -> None:
    with pytest.raises(PicoError, match="metric cka takes two tensors"):
        of("cka", TX)
    with pytest.raises(PicoError, match="metric per takes one tensor"):
        of("per", TX, TY)


def test_half_precision_is_measured_in_double() -> None:
    for dtype in (torch.bfloat16, torch.float16):
        half = TX.to(dtype)
        for name in ("gini", "per", "hoyer", "condition_number", "kurtosis"):
            assert of(name, half) == of(name, half.double())


def test_pieces_name_what_they_are() -> None:
    assert Piece("attention.v_proj", lambda: TX, 3, 1).label == ("attention.v_proj", 3, 1)


def test_no_metric_changes_its_input() -> None:
    for entry in METRICS.entries():
        sides = [torch.from_numpy(RNG.standard_normal((12, 4))) for _ in range(2)]
        before = [side.clone() for side in sides]
        pair = entry.object.traits.needs in ("pair", "decomposed_pair")
        options = {"norm": {"norm_type": "nuclear"}, "mutual_knn": {"neighbours": 3}}.get(entry.name, {})
        with contextlib.suppress(Undefined):
            of(entry.name, *sides[: 2 if pair else 1], **options)
        assert all(torch.equal(side, old) for side, old in zip(sides, before, strict=True)), entry.name


@pytest.mark.parametrize("at", [0.0, 0.13, 0.5, 0.9, 1.0])
def test_a_place_of_the_spectrum_is_a_quantile_of_its_singular_values(at: float) -> None:
    sigma = np.linalg.svd(X, compute_uv=False)
    assert of("singular_value", TX, at=at) == pytest.approx(np.quantile(sigma, 1 - at), rel=1e-12)
    relative = np.quantile(sigma, 1 - at) / np.sqrt((sigma**2).mean())
    assert of("relative_singular_value", TX, at=at) == pytest.approx(relative, rel=1e-12)


@pytest.mark.parametrize("shape", [(400, 400), (150, 600), (600, 150)])
@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_the_null_of_a_place_is_what_a_large_gaussian_matrix_has(shape: tuple[int, int], at: float) -> None:
    noise = torch.randn(*shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    null = null_value(find_metric("relative_singular_value", {"at": at}, "test"), Matrix(lambda: noise), None)
    assert null == pytest.approx(of("relative_singular_value", noise, at=at), rel=0.02)


@pytest.mark.parametrize("at", [0.0, 1.0])
def test_the_null_of_the_ends_of_the_spectrum_does_not_lie_on_the_edge_of_the_law(at: float) -> None:
    generator = torch.Generator().manual_seed(5)
    draws = [
        of("relative_singular_value", torch.randn(40, 160, generator=generator, dtype=torch.float64), at=at) for _ in range(50)
    ]
    null = null_value(find_metric("relative_singular_value", {"at": at}, "test"), Matrix(lambda: torch.ones(40, 160)), None)
    assert null == pytest.approx(np.mean(draws), rel=0.03)
    edge = 1.5 if at == 0 else 0.5
    assert abs(null - np.mean(draws)) < abs(edge - np.mean(draws))


def test_a_place_outside_the_spectrum_is_refused() -> None:
    with pytest.raises(PicoError, match="at"):
        of("singular_value", TX, at=1.5)
