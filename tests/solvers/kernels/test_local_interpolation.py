import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec.solvers.kernels.local_interpolation import (
    affine_weights,
    best_rows,
    distance_weights,
    gram_of_differences,
    template_chi2,
)


@pytest.fixture
def spectra():
    rng = np.random.default_rng(0)
    templates = 1 + 0.1 * rng.normal(size=(9, 30))
    flux = templates[[2, 5]] + 0.01 * rng.normal(size=(2, 30))
    return flux, rng.uniform(0, 1e4, (2, 30)), templates


@pytest.mark.parametrize("fit_amplitude", [False, True])
def test_chi2_is_the_sum(spectra, fit_amplitude):
    flux, weight, templates = spectra
    if fit_amplitude:
        flux = 3 * flux
    chi2, amplitude = template_chi2(flux, weight, templates, fit_amplitude=fit_amplitude)
    for i in range(2):
        for k, template in enumerate(templates):
            a = np.sum(weight[i] * flux[i] * template) / np.sum(weight[i] * template**2)
            a = a if fit_amplitude else 1.0
            assert_allclose(amplitude[i, k], a)
            assert_allclose(chi2[i, k], np.sum(weight[i] * (flux[i] - a * template) ** 2))
    assert_array_equal(best_rows(chi2, 4)[:, 0], [2, 5])
    assert_array_equal(best_rows(chi2, 4), np.argsort(chi2, axis=1)[:, :4])


def test_weights_of_the_plain_mean():
    chi2 = np.array([[1.0, 2.0, 5.0], [0.0, 0.0, 0.0], [0.0, 1.0, 2.0]])
    exp, inverse = (distance_weights(chi2, kind) for kind in ("exp", "1/chi2"))
    assert_allclose(exp[0] / exp[0, 0], np.exp([0, -0.5, -2]))
    assert_allclose(inverse[0] / inverse[0, 0], [1, 1 / 2, 1 / 5])
    for weights in (exp, inverse):
        assert_allclose(weights.sum(axis=1), 1)
        assert_allclose(weights[1], 1 / 3)


def test_affine_weights_minimise_what_they_say(spectra):
    flux, weight, templates = spectra
    rows = np.array([[2, 1, 7, 4], [5, 0, 3, 8]])
    gram = gram_of_differences(flux, weight, templates, rows)
    prior, smoothing = np.array([[0.4, 0.3, 0.2, 0.1]] * 2), 0.2
    a = affine_weights(gram.copy(), prior, smoothing)
    assert_allclose(a.sum(axis=1), 1)

    def loss(a, i):
        fit = np.sum(weight[i] * (flux[i] - a @ templates[rows[i]]) ** 2)
        ridge = np.trace(gram[i]) / 4 * np.sum((a - prior[i]) ** 2 / (4 * prior[i]))
        return fit + smoothing * ridge

    rng = np.random.default_rng(1)
    for i in range(2):
        for _ in range(20):
            step = rng.normal(size=4)
            step -= step.mean()
            assert loss(a[i] + 1e-3 * step, i) > loss(a[i], i)
            assert loss(a[i] - 1e-3 * step, i) > loss(a[i], i)
    assert_allclose(affine_weights(gram, prior, 1e9), prior, atol=1e-6)


def test_a_spectrum_between_two_templates_gets_their_labels_mixed():
    templates = np.array([[1.0, 0, 0, 1], [0, 1, 0, 1], [0, 0, 1, 1], [5, 5, 5, 5]])
    flux = 0.3 * templates[:1] + 0.7 * templates[1:2]
    rows = np.array([[1, 0, 2]])
    gram = gram_of_differences(flux, np.ones((1, 4)), templates, rows)
    a = affine_weights(gram, np.full((1, 3), 1 / 3), 1e-6)
    assert_allclose(a, [[0.7, 0.3, 0.0]], atol=1e-4)
