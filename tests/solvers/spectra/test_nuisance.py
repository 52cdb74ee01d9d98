import numpy as np
import pytest
from numpy.testing import assert_allclose

from skspec.solvers.spectra.nuisance import (
    continuum_basis,
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
