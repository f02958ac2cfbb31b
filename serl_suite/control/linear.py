"""Finite checks and small symmetric positive definite systems: seven joints need no LAPACK."""

import math

import numpy as np

from serl_suite.control.compiled import Array, compiled

__all__ = ["all_finite", "cholesky", "cholesky_inverse", "cholesky_solve", "eigen_decompose"]


@compiled
def all_finite(values: Array) -> bool:
    """Whether no element is NaN or inf. Shape: (n,)."""
    for value in values:  # noqa: SIM110 - numba compiles no generator expression
        if not math.isfinite(value):
            return False
    return True


@compiled
def cholesky(matrix: Array, factor: Array) -> bool:
    """Writes the lower L with L L^T = matrix into `factor`; False where the matrix is not positive definite.

    Shapes: (n, n), (n, n). Only the lower triangle is read.
    """
    n = matrix.shape[0]
    for j in range(n):
        for i in range(j, n):
            total = matrix[i, j]
            for k in range(j):
                total -= factor[i, k] * factor[j, k]
            if i > j:
                factor[i, j] = total / factor[j, j]
            elif total > 0.0:
                factor[j, j] = math.sqrt(total)
            else:
                return False
    return True


@compiled
def cholesky_solve(factor: Array, vector: Array) -> None:
    """Replaces the vector b by the solution x of L L^T x = b. Shapes: (n, n), (n,)."""
    n = factor.shape[0]
    for i in range(n):
        total = vector[i]
        for k in range(i):
            total -= factor[i, k] * vector[k]
        vector[i] = total / factor[i, i]
    for i in range(n - 1, -1, -1):
        total = vector[i]
        for k in range(i + 1, n):
            total -= factor[k, i] * vector[k]
        vector[i] = total / factor[i, i]


@compiled
def cholesky_inverse(factor: Array) -> Array:
    """The inverse of L L^T, exactly symmetric. Shape: (n, n) -> (n, n)."""
    n = factor.shape[0]
    lower = np.zeros((n, n))
    for j in range(n):
        lower[j, j] = 1.0 / factor[j, j]
        for i in range(j + 1, n):
            total = 0.0
            for k in range(j, i):
                total -= factor[i, k] * lower[k, j]
            lower[i, j] = total / factor[i, i]
    inverse = np.empty((n, n))
    for i in range(n):
        for j in range(i + 1):
            total = 0.0
            for k in range(i, n):
                total += lower[k, i] * lower[k, j]
            inverse[i, j] = total
            inverse[j, i] = total
    return inverse


@compiled
def eigen_decompose(matrix: Array, vectors: Array) -> None:
    """Turns a symmetric matrix into eigenvalues (left on its diagonal, unsorted) and eigenvectors (columns).

    Cyclic Jacobi rotations until no off-diagonal element matters beside its two diagonal ones: 1e-5 of their
    geometric mean, which leaves each eigenvalue, small ones too, exact to about its square. At most 12
    sweeps; 3 or 4 are usual.
    Shapes: (n, n), (n, n), both written.
    """
    n = matrix.shape[0]
    for i in range(n):
        for j in range(n):
            vectors[i, j] = 1.0 if i == j else 0.0
    for _ in range(12):
        rotated = False
        for p in range(n - 1):
            for q in range(p + 1, n):
                off = matrix[p, q]
                if off * off <= 1e-10 * abs(matrix[p, p] * matrix[q, q]):
                    continue
                rotated = True
                theta = (matrix[q, q] - matrix[p, p]) / (2.0 * off)
                t = 1.0 / (abs(theta) + math.sqrt(theta * theta + 1.0))
                t = t if theta >= 0.0 else -t
                c = 1.0 / math.sqrt(t * t + 1.0)
                s = t * c
                for k in range(n):
                    a, b = matrix[k, p], matrix[k, q]
                    matrix[k, p], matrix[k, q] = c * a - s * b, s * a + c * b
                    a, b = vectors[k, p], vectors[k, q]
                    vectors[k, p], vectors[k, q] = c * a - s * b, s * a + c * b
                for k in range(n):
                    a, b = matrix[p, k], matrix[q, k]
                    matrix[p, k], matrix[q, k] = c * a - s * b, s * a + c * b
        if not rotated:
            return
