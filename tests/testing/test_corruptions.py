"""Spectra spoilt for tests: only what is to be spoilt, and never those of the caller."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal

from skspec.testing import corruptions, draw_stars
from skspec.testing.corruptions import (
    as_dtype,
    blind_stars,
    fill_bad_pixels,
    kill_pixels,
    make_noisier,
    read_only,
    without_errors,
)


@pytest.fixture
def spectra():
    return draw_stars(8, bad=0.1)[0]


@pytest.mark.parametrize(
    "function, arguments",
    [
        (fill_bad_pixels, (7.0,)),
        (kill_pixels, (np.arange(50) < 3,)),
        (blind_stars, ([1],)),
        (make_noisier, (3.0,)),
        (without_errors, ()),
        (as_dtype, (np.float32,)),
        (read_only, ()),
    ],
)
def test_the_callers_spectra_are_left_alone(function, arguments, spectra):
    flux, ivar = spectra.flux.copy(), spectra.ivar.copy()
    out = function(spectra, *arguments)
    assert out is not spectra and out.shape == spectra.shape
    assert_array_equal(out.wavelength, spectra.wavelength)
    assert_array_equal(spectra.flux, flux)
    assert_array_equal(spectra.ivar, ivar)
    assert function.__name__ in corruptions.__all__


def test_bad_pixels(spectra):
    out = fill_bad_pixels(spectra, 7.0)
    assert_array_equal(out.good, spectra.good)
    assert_array_equal(out.flux[~spectra.good], 7.0)
    assert_array_equal(out.flux[spectra.good], spectra.flux[spectra.good])
    dead = np.arange(50) < 3
    out = kill_pixels(spectra, dead, 5.0)
    assert not out.good[:, :3].any() and np.all(out.flux[:, :3] == 5)
    assert_array_equal(out.ivar[:, 3:], spectra.ivar[:, 3:])
    plain = draw_stars(8, errors=None)[0]
    assert plain.ivar is None and not kill_pixels(plain, dead).has_errors


def test_blind_stars(spectra):
    for which in ([1, 4], np.isin(np.arange(8), [1, 4])):
        out = blind_stars(spectra, which)
        assert_array_equal(np.flatnonzero(~out.good.any(axis=1)), [1, 4])
        assert_array_equal(out.flux, spectra.flux)
        assert np.all(blind_stars(spectra, which, 1e20).flux[[1, 4]] == 1e20)


def test_errors(spectra):
    assert_array_equal(make_noisier(spectra, 2.0).ivar, spectra.ivar / 4)
    assert not make_noisier(spectra, np.inf).good.any()
    assert not without_errors(spectra).has_errors
    assert_array_equal(without_errors(spectra).good, spectra.good)
    assert as_dtype(spectra, np.float32).ivar.dtype == np.float32
    with pytest.raises(ValueError, match="read-only"):
        read_only(spectra).flux[0] = 1
