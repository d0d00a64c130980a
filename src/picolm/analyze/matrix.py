"""A matrix as metrics see it: read when first asked for, in float64, every decomposition computed once and shared."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor

from picolm.analyze.decompositions import (
    FLOAT32_EPSILON,
    Directions,
    Product,
    Spectrum,
    basis_of_full_rank,
    decompose,
    rank_tolerance,
    rounding_floor,
    spectrum,
    spectrum_of_product,
)
from picolm.analyze.kernels import squared_inner_products, unbiased_hsic
from picolm.base.errors import Undefined

LARGEST = 2**28
"""Entries a matrix may have to be written out in float64: 2 GB."""


class Matrix:
    """One matrix and what metrics share about it. A vector is a matrix of one row. `load` may raise `Undefined`."""

    def __init__(self, load: Callable[[], Tensor | Product]) -> None:
        self._load = load

    @cached_property
    def stored(self) -> Tensor | Product:
        """What `load` gave: a tensor of at most two dimensions in its stored type, or a product."""
        stored = self._load()
        if isinstance(stored, Product):
            return Product(_finite(stored.left_MR.double()), _finite(stored.right_RN.double()))
        if stored.ndim > 2 or stored.numel() == 0:
            raise Undefined(f"a tensor of shape {tuple(stored.shape)} is not a matrix")
        return _finite(stored.reshape(1, -1) if stored.ndim < 2 else stored)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        if isinstance(self.stored, Product):
            return self.stored.left_MR.shape[0], self.stored.right_RN.shape[1]
        return self.stored.shape[0], self.stored.shape[1]

    @property
    def is_product_of_fewer_columns(self) -> bool:
        return isinstance(self.stored, Product) and self.stored.left_MR.shape[1] < min(self.shape)

    @property
    def inner_width(self) -> int:
        """Columns between the factors of a product; the smaller side of any other matrix."""
        return min(self.stored.left_MR.shape[1] if isinstance(self.stored, Product) else min(self.shape), *self.shape)

    @cached_property
    def entries_MN(self) -> Tensor:
        """The entries in float64; never the stored tensor itself. Undefined for a product too large to write out."""
        rows, columns = self.shape
        if rows * columns > LARGEST:
            raise Undefined(f"{rows:,} x {columns:,} is too large to write out; metrics of singular values are not")
        if isinstance(self.stored, Product):
            return self.stored.left_MR @ self.stored.right_RN
        return self.stored.to(torch.float64, copy=True)

    @cached_property
    def magnitudes_ascending(self) -> Tensor:
        """Absolute values of all entries, smallest first."""
        import numpy

        if isinstance(self.stored, Tensor) and self.stored.dtype in (torch.bfloat16, torch.float16, torch.float32):
            exact = self.stored.detach().float().abs().flatten().numpy()  # sorting as float32 is exact, and faster
        else:
            exact = self.entries_MN.abs().flatten().numpy()
        return torch.from_numpy(numpy.sort(exact)).double()

    @property
    def singular_values_R(self) -> Tensor:
        """All min(rows, columns) singular values, largest first."""
        return self._spectrum.sigma_R

    @property
    def decomposition(self) -> str:
        """How the singular values were computed."""
        return self._spectrum.how

    @cached_property
    def _spectrum(self) -> Spectrum:
        if not self.is_product_of_fewer_columns:
            return spectrum(self.entries_MN)
        assert isinstance(self.stored, Product)
        return spectrum_of_product(self.stored)

    @cached_property
    def centred_SR(self) -> Tensor:
        """Samples with column means removed, columns rotated so that a product needs few: same inner products of rows."""
        if not self.is_product_of_fewer_columns:
            return self.centred_SN
        assert isinstance(self.stored, Product)
        right_RR: Tensor = torch.linalg.qr(self.stored.right_RN.T, mode="r").R
        return _centred(self.stored.left_MR) @ right_RR.T

    @cached_property
    def centred_SN(self) -> Tensor:
        """Samples with column means removed."""
        return _centred(self.entries_MN)

    @cached_property
    def unit_SR(self) -> Tensor:
        """`centred_SR` divided by its largest magnitude, so that fourth powers neither overflow nor vanish."""
        largest = self.centred_SR.abs().max()
        if not largest > 0:
            raise Undefined("one side has no variance")
        return self.centred_SR / largest

    @cached_property
    def own_square(self) -> float:
        """‖XᵀX‖² of `unit_SR`."""
        return squared_inner_products(self.unit_SR, self.unit_SR)

    @cached_property
    def own_hsic(self) -> float:
        """Unbiased counterpart of `own_square`."""
        return unbiased_hsic(self.unit_SR, self.unit_SR)

    @cached_property
    def basis_SR(self) -> Tensor:
        """Orthonormal basis of the centred columns, those below the rank tolerance dropped; Undefined without variance."""
        if "principal" not in vars(self):
            basis_SR = basis_of_full_rank(self.unit_SR, max(self.shape) * FLOAT32_EPSILON)
            if basis_SR is not None:
                return basis_SR
        return self.principal.directions_SR

    @cached_property
    def principal(self) -> Directions:
        """Principal directions of `unit_SR`, those below the rank tolerance dropped; Undefined without variance."""
        directions_SR, sigma_R = decompose(self.unit_SR)
        kept_R = sigma_R > rank_tolerance(sigma_R, self.shape)
        return Directions(directions_SR[:, kept_R], sigma_R[kept_R])

    @cached_property
    def rank(self) -> int:
        """Singular values above max(rows, columns) x 2^-52 x the largest: the rank in float64."""
        sigma_R = self.singular_values_R
        return int((sigma_R > self._decomposition_floor * sigma_R[0]).sum())

    @property
    def _decomposition_floor(self) -> float:
        return max(self.shape) * torch.finfo(torch.float64).eps

    @property
    def stored_type(self) -> str:
        """Name of the type that the entries, or the factors, are stored in."""
        return str(self._stored_dtype).removeprefix("torch.")

    @property
    def _stored_dtype(self) -> torch.dtype:
        return self.stored.left_MR.dtype if isinstance(self.stored, Product) else self.stored.dtype

    @cached_property
    def rounding_floor(self) -> float:
        """Share of the largest singular value below which a direction may be nothing but the rounding of the stored entries."""
        sigma_R = self.singular_values_R
        if not (self._stored_dtype.is_floating_point and sigma_R[0] > 0):
            return 0.0
        root_mean_square = float((sigma_R.square().sum() / (self.shape[0] * self.shape[1])).sqrt())
        of_entries = rounding_floor(self.shape, root_mean_square, torch.finfo(self._stored_dtype).eps) / float(sigma_R[0])
        return max(of_entries, self._decomposition_floor)

    @cached_property
    def numerical_rank(self) -> int:
        """Singular values that are more than the rounding of the stored entries."""
        sigma_R = self.singular_values_R
        return int((sigma_R > self.rounding_floor * sigma_R[0]).sum())

    def rows_permuted(self, seed: int) -> Matrix:
        """The same matrix with its rows in an order drawn from `seed`; what is known already is carried along."""
        order = torch.randperm(self.shape[0], generator=torch.Generator().manual_seed(seed))
        permuted = Matrix(lambda: _with_rows(self.stored, order))
        for name in ("entries_MN", "centred_SN", "centred_SR", "unit_SR", "basis_SR"):
            if name in vars(self):
                vars(permuted)[name] = vars(self)[name][order]
        for name in ("own_square", "own_hsic"):
            if name in vars(self):
                vars(permuted)[name] = vars(self)[name]
        if "principal" in vars(self):
            vars(permuted)["principal"] = Directions(self.principal.directions_SR[order], self.principal.sigma_R)
        return permuted

    def forget_entries(self) -> None:
        """Drop what is large and can be read again; decompositions are kept."""
        for name in ("stored", "entries_MN", "magnitudes_ascending", "centred_SN", "centred_SR"):
            vars(self).pop(name, None)


def _with_rows(stored: Tensor | Product, order: Tensor) -> Tensor | Product:
    return stored[order] if isinstance(stored, Tensor) else Product(stored.left_MR[order], stored.right_RN)


def _finite(tensor: Tensor) -> Tensor:
    if not torch.isfinite(tensor).all():
        raise Undefined("the input holds values that are not finite")
    return tensor.detach().cpu()


def _centred(entries_SN: Tensor) -> Tensor:
    """Column means removed; a column that is constant up to rounding becomes exactly zero."""
    centred_SN = entries_SN - entries_SN.mean(dim=0)
    rounding_N = 8 * torch.finfo(torch.float64).eps * entries_SN.abs().amax(dim=0)
    return torch.where(centred_SN.abs().amax(dim=0) > rounding_N, centred_SN, 0.0)


__all__ = ["Matrix", "Product"]
