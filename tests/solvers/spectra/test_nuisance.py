import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec.solvers.spectra.nuisance import (
    Continuum,
    continuum_basis,
    marginal_information,
    velocity_derivatives,
)

C_KMS = 299792.458


class TestVelocityDerivatives:
    def test_of_a_sine_on_a_linear_grid_in_any_order(self):
        wavelength = np.linspace(5000, 5050, 400)
        velocity = C_KMS * np.log(wavelength / 5000)
        k = 2 * np.pi / 150.0  # 19 pixels per wave
        flux = np.sin(k * velocity + np.array([[0.0], [1.0]]))
        first, second = velocity_derivatives(flux, wavelength)
        inner = slice(12, -12)
        expected = k * np.cos(k * velocity + np.array([[0.0], [1.0]]))
        assert_allclose(first[:, inner], expected[:, inner], atol=2e-3 * k)
        assert_allclose(second[:, inner], -(k**2) * flux[:, inner], atol=4e-3 * k**2)
        shuffled = np.random.default_rng(0).permutation(400)
        again = velocity_derivatives(flux[:, shuffled], wavelength[shuffled])
        assert_allclose(again[0], first[:, shuffled], rtol=1e-12)
        assert_allclose(again[1], second[:, shuffled], rtol=1e-12)

    def test_orders_may_overlap_and_know_nothing_of_each_other(self):
        one = np.linspace(5000, 5010, 50)
        wavelength, order = np.r_[one, one], np.repeat([3, 7], 50)
        flux = np.r_[np.sin(one), 1e3 + np.cos(one)][None]
        both = velocity_derivatives(flux, wavelength, order)
        for k, part in enumerate(both):
            alone = velocity_derivatives(flux[:, 50:], one)[k]
            assert_allclose(part[:, 50:], alone)
        with pytest.raises(ValueError, match="give the echelle order"):
            velocity_derivatives(flux, wavelength)
        with pytest.raises(ValueError, match="must be positive"):
            velocity_derivatives(flux, wavelength - 5005, order)

    def test_lonely_pixel_has_no_slope(self):
        first, second = velocity_derivatives([[1.0, 2.0, 3.0]], [5000, 5001, 6000], [0, 0, 1])
        assert first[0, 2] == second[0, 2] == 0 and first[0, 0] > 0


def test_continuum_basis_spans_the_polynomials_of_each_order():
    wavelength, order = np.linspace(4000, 4100, 60), np.repeat([1, 0], 30)
    basis = continuum_basis(wavelength, 3, order)
    wanted = np.where(order == 1, 2 - 0.1 * wavelength + 1e-5 * wavelength**3, 0)
    coef = np.linalg.lstsq(basis.T, wanted, rcond=None)[0]
    assert_allclose(coef @ basis, wanted, rtol=1e-9, atol=1e-9)


class TestMarginalInformation:
    def test_is_the_inverse_of_the_block_of_the_inverse(self):
        rng = np.random.default_rng(0)
        root = rng.normal(size=(3, 40, 6)) * 10.0 ** np.arange(-6, 6, 2)
        fisher = np.swapaxes(root, 1, 2) @ root
        keep = [4, 1]
        found = marginal_information(fisher, keep)
        scale = 10.0 ** np.arange(-6, 6, 2)
        cov = np.linalg.inv(fisher / np.outer(scale, scale)) / np.outer(scale, scale)
        expected = np.linalg.inv(cov[:, keep][:, :, keep])
        assert_allclose(found, expected, rtol=1e-9)

    def test_unknown_and_useless_parameters(self):
        fisher = np.array([np.diag([4.0, 0.0, 9.0]), np.full((3, 3), np.nan)])
        found = marginal_information(fisher, [0])
        assert found[0, 0, 0] == 4 and np.isnan(found[1, 0, 0])
        imitated = np.outer([1.0, 2.0], [1.0, 2.0])[None]
        assert marginal_information(imitated, [0])[0, 0, 0] == 0

    def test_leaves_its_argument_alone(self):
        fisher = np.full((1, 2, 2), 0.5) + np.eye(2)
        copy = fisher.copy()
        marginal_information(fisher, [0])
        assert np.array_equal(fisher, copy)


@pytest.mark.parametrize("order", [None, np.repeat([0, 1], [70, 50])])
def test_solution_is_weighted_least_squares_star_by_star(order):
    rng = np.random.default_rng(0)
    continuum = Continuum(np.linspace(4000, 5000, 120), 3, order)
    model, flux = 1 + 0.3 * rng.normal(size=(2, 4, 120))
    weight = rng.uniform(0.5, 2, size=(4, 120)) * (rng.random((4, 120)) > 0.1)
    coef, normal = continuum.solve(model, flux, weight)
    for i in range(4):
        root = np.sqrt(weight[i])
        design = (continuum.polynomials * model[i]).T * root[:, None]
        expected = np.linalg.lstsq(design, flux[i] * root, rcond=None)[0]
        assert_allclose(coef[i], expected, rtol=1e-8, atol=1e-10)
        assert_allclose(normal[i], design.T @ design, rtol=1e-9, atol=1e-9)


def test_a_shared_model_and_an_order_without_good_pixels():
    order = np.repeat([0, 1], 40)
    continuum = Continuum(np.arange(80.0), 2, order)
    weight = np.ones((2, 80))
    weight[0, 40:] = 0
    weight[1] = 0
    coef, _ = continuum.solve(np.ones(80), np.full((2, 80), 3.0), weight)
    assert_allclose(coef, [[3, 0, 0, 0, 0, 0], [0] * 6], atol=1e-10)
