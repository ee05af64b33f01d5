"""Ridge regressions against refits without each row, slopes against differences of values."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from skbi.preprocessing.emulator import _PENALTIES, Basis, Emulator, Ridge, choose_length_scales


def refitted_without_each_row(design, y, penalty):
    """Return each row's error when the regression is fitted to all other rows, (n,)."""
    errors = np.empty(len(y))
    for i in range(len(y)):
        others = np.arange(len(y)) != i
        gram = design[others].T @ design[others] + penalty * np.eye(design.shape[1])
        coefficients = np.linalg.solve(gram, design[others].T @ y[others])
        errors[i] = y[i] - design[i] @ coefficients
    return errors


@given(seed=st.integers(0, 999), n=st.integers(10, 40), m=st.integers(1, 8))
def test_leave_one_out_errors_are_those_of_refits_without_the_row(seed, n, m):
    rng = np.random.default_rng(seed)
    design, noise = rng.normal(size=(n, m)), rng.normal(size=(n, 3))
    y = (design @ rng.normal(size=(m, 3))) * [1.0, 0.1, 0.0] + noise * [0.01, 1.0, 1.0]
    ridge = Ridge(design)
    penalties, errors, _ = ridge.choose(y)
    coefficients, of_solution, degrees = ridge.solve(y)
    np.testing.assert_array_equal(of_solution, errors)
    residuals = ridge.residuals(y, coefficients)
    for j in range(3):
        slow = [refitted_without_each_row(design, y[:, j], penalty) for penalty in _PENALTIES]
        squares = np.mean(np.square(slow), axis=1)
        np.testing.assert_allclose(errors[j], squares.min(), rtol=1e-6)
        np.testing.assert_allclose(residuals[:, j], slow[penalties[j]], rtol=1e-5, atol=1e-9)
        penalty = _PENALTIES[penalties[j]]
        hat = design @ np.linalg.solve(design.T @ design + penalty * np.eye(m), design.T)
        np.testing.assert_allclose(ridge.rotated @ coefficients[:, j], hat @ y[:, j], atol=1e-8)
        np.testing.assert_allclose(degrees[j], np.trace(hat), rtol=1e-6)


@given(seed=st.integers(0, 999), p=st.integers(1, 4))
def test_the_design_is_kernels_made_uncorrelated_a_constant_and_w(seed, p):
    rng = np.random.default_rng(seed)
    w, lengths = rng.normal(size=(30, p)), rng.uniform(0.5, 2, p)
    basis = Basis.fit(w, lengths, rng, n_centres=12)
    assert all((w == centre).all(axis=1).any() for centre in basis.centres)
    design = basis.design(w)
    assert design.shape == (30, 12 + 1 + p)
    slow = [[np.exp(-0.5 * (((a - c) / lengths) ** 2).sum()) for c in basis.centres] for a in w]
    np.testing.assert_allclose(basis.kernel(w), slow, atol=1e-9)
    np.testing.assert_allclose(design[:, :12] @ basis.root().T, slow, atol=1e-6)
    np.testing.assert_array_equal(design[:, 12:], np.hstack([np.ones((30, 1)), w]))


@given(seed=st.integers(0, 999), p=st.integers(1, 4), k=st.integers(1, 3))
def test_the_slope_is_that_of_the_value(seed, p, k):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(200, p))
    y = np.sin(w @ rng.normal(size=(p, k))) + 0.01 * rng.normal(size=(200, k))
    emulator, _ = Emulator.fit(w, y, np.full(p, 1.5), rng)
    at = rng.normal(size=(5, p))
    value, slope = emulator.value_and_slope(at)
    np.testing.assert_allclose(value, emulator(at), rtol=1e-9, atol=1e-9)
    step = 1e-4 * np.eye(p)
    differences = [(emulator(at + e) - emulator(at - e)) / 2e-4 for e in step]
    np.testing.assert_allclose(slope, np.stack(differences, axis=2), rtol=1e-4, atol=1e-4)


def test_the_emulator_of_a_product_is_the_product_of_the_emulator():
    rng = np.random.default_rng(0)
    w, y, matrix = rng.normal(size=(100, 2)), rng.normal(size=(100, 3)), rng.normal(size=(3, 2))
    emulator, _ = Emulator.fit(w, y, np.ones(2), rng)
    value, slope = emulator.value_and_slope(w)
    product, slope_of_product = emulator.transformed(matrix).value_and_slope(w)
    np.testing.assert_allclose(product, value @ matrix, atol=1e-9)
    np.testing.assert_allclose(slope_of_product, np.einsum("nkp,kl->nlp", slope, matrix), atol=1e-9)


@given(seed=st.integers(0, 999))
def test_a_parameter_without_effect_has_the_longer_length_scale(seed):
    rng = np.random.default_rng(seed)
    w = rng.normal(size=(150, 2))
    y = np.sin(3 * w[:, :1] + np.arange(20)) + 0.1 * rng.normal(size=(150, 20))
    with_effect, without = choose_length_scales(w, y, rng)
    assert without > 5 * with_effect


@pytest.mark.parametrize("p", [1, 2])
@pytest.mark.parametrize("sd", [0.03, 0.3])
def test_a_function_is_found_within_its_noise(p, sd):
    """With 2000 rows the error of the mean is well below half the noise of one row."""
    rng = np.random.default_rng(0)
    w, at = rng.uniform(-1.7, 1.7, size=(2000, p)), rng.uniform(-1.5, 1.5, size=(500, p))

    def mean(w):
        return np.column_stack([np.sin(2 * w.sum(axis=1)), w[:, 0] ** 2 + w[:, -1]])

    y = mean(w) + sd * rng.normal(size=(2000, 2))
    lengths = choose_length_scales(w, y, rng)
    emulator, errors = Emulator.fit(w, y, lengths, rng)
    assert np.sqrt(((emulator(at) - mean(at)) ** 2).mean(axis=0)).max() < 0.3 * sd
    np.testing.assert_allclose(errors.std(axis=0), sd, rtol=0.1)


@pytest.mark.parametrize("n", [50, 200, 1000])
def test_noise_is_not_explained_however_few_the_rows(n):
    """Also where every row is the centre of a kernel, which could give its value exactly."""
    rng = np.random.default_rng(0)
    w, y = rng.normal(size=(n, 2)), rng.normal(size=(n, 20))
    _, errors, _ = Ridge(Basis.fit(w, np.full(2, 0.1), rng).design(w)).choose(y)
    np.testing.assert_allclose(np.sqrt(errors.mean()), 1, atol=0.15)


def test_a_straight_line_is_continued_beyond_the_training_rows():
    rng = np.random.default_rng(0)
    w, slopes = rng.normal(size=(500, 2)), np.array([[1.0], [-2.0]])
    y = 3 + w @ slopes + 0.01 * rng.normal(size=(500, 1))
    emulator, _ = Emulator.fit(w, y, np.full(2, 4.0), rng)
    far = np.array([[8.0, 0.0], [0.0, -8.0]])
    np.testing.assert_allclose(emulator(far), 3 + far @ slopes, atol=0.3)
