import numpy as np
from numpy.polynomial.chebyshev import chebfit, chebval
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.augmentation import ContinuumJitter


def test_a_polynomial_of_the_size_that_was_asked_for():
    stars = Spectra(np.full((3000, 100), 5.0), flux_err=0.1)
    out = ContinuumJitter(0.03, degree=2, random_state=0).augment(stars)
    jitter = out.flux / 5 - 1
    assert_allclose(np.sqrt(np.mean(jitter**2)), 0.03, rtol=0.05)
    x = np.linspace(-1, 1, 100)
    assert_allclose(jitter[7], chebval(x, chebfit(x, jitter[7], 2)), atol=1e-12)
    assert np.abs(jitter[7] - chebval(x, chebfit(x, jitter[7], 1))).max() > 1e-4
    assert_allclose(out.flux * np.sqrt(out.ivar), 50)


def test_each_order_by_itself():
    order = np.repeat([4, 2, 9], [30, 40, 50])
    out = ContinuumJitter(0.1, degree=0, random_state=0).augment(
        Spectra(np.ones((5, 120)), order=order)
    )
    for number in (2, 4, 9):
        assert_allclose(np.ptp(out.flux[:, order == number], axis=1), 0, atol=1e-12)
    assert np.ptp(out.flux[0]) > 1e-3


def test_continua_stay_positive():
    out = ContinuumJitter((0.5, 0.9), random_state=0).augment(np.ones((500, 50)))
    assert out.flux.min() == 0.1
    assert_array_equal(np.sign(out.flux), 1)


def test_one_pixel():
    assert ContinuumJitter(random_state=0).augment(np.ones((3, 1))).shape == (3, 1)
