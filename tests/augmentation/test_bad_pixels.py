import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec.augmentation import BadPixels, TelluricMask
from skspec.solvers.spectra.line_of_sight import C_KMS

FLAT = Spectra(np.full((200, 1000), 3.0), flux_err=0.1, wavelength=np.linspace(6000, 7000, 1000))


def runs(bad):
    """Lengths of the runs of True in each row, joined."""
    edges = np.diff(np.pad(bad, ((0, 0), (1, 1))).astype(int), axis=1)
    return np.flatnonzero(edges.ravel() == -1) - np.flatnonzero(edges.ravel() == 1)


def test_single_pixels():
    out = BadPixels(0.05, flux=1.0, random_state=0).augment(FLAT)
    assert_allclose(np.mean(~out.good), 0.05, rtol=0.05)
    assert_array_equal(out.flux, np.where(out.good, 3, 1))
    assert_array_equal(BadPixels(0.05, flux=None, random_state=0).augment(FLAT).flux, 3)
    varied = np.mean(~BadPixels((0, 0.2), random_state=0).augment(FLAT).good, axis=1)
    assert varied.min() < 0.02 and varied.max() > 0.17
    assert_allclose(varied.mean(), 0.1, atol=0.01)


def test_runs():
    out = BadPixels(0, 0.05, run_length=(5, 20), random_state=0).augment(FLAT)
    assert_allclose(np.mean(~out.good), 0.05, rtol=0.1)
    length = runs(~out.good[:, :980])
    assert np.mean(length < 5) < 0.02 and 10 < np.median(length) < 16
    exact = runs(~BadPixels(0, 0.002, run_length=7, random_state=0).augment(FLAT).good)
    assert set(exact[exact < 8]) >= {7} and np.mean(exact == 7) > 0.9


def test_runs_end_with_their_order():
    spectra = Spectra(np.ones((400, 1000)), order=np.repeat([0, 1], 500))
    bad = ~BadPixels(0, 0.2, run_length=50, random_state=0).augment(spectra).good
    crossing = bad[:, 499] & bad[:, 500]
    assert bad[:, 499].mean() > 0.1 and crossing.mean() < 0.5 * bad[:, 499].mean()


def test_masks_of_observed_stars():
    rng = np.random.default_rng(0)
    masks = rng.random((4, 1000)) < [[0.0], [0.01], [0.1], [0.3]]
    blind = np.ones((1, 1000), dtype=bool)  # tells nothing, and is not drawn
    observed = Spectra(np.ones((5, 1000)), mask=np.vstack([masks, blind]))
    out = BadPixels(0, observed=observed, random_state=0).augment(FLAT)
    kind = np.array([np.flatnonzero((row == masks).all(axis=1))[0] for row in ~out.good])
    assert_allclose(np.bincount(kind) / 200, 0.25, atol=0.12)


def test_what_was_bad_stays_as_it_was():
    mask = np.zeros(FLAT.shape, dtype=bool)
    mask[:, 10] = True
    out = BadPixels(0.5, flux=1.0, random_state=0).augment(FLAT.replace(mask=mask))
    assert_array_equal(out.flux[:, 10], 3)
    assert not out.good[:, 10].any()


def test_windows():
    mask = TelluricMask([(6100, 6150), (6870, 6900)], flux=0.5)
    out = mask.augment(FLAT)
    w = FLAT.wavelength
    inside = ((w >= 6100) & (w <= 6150)) | ((w >= 6870) & (w <= 6900))
    assert_array_equal(out.good, np.tile(~inside, (200, 1)))
    assert_array_equal(out.flux[0], np.where(inside, 0.5, 3))
    assert_array_equal(TelluricMask([(6100, 6150)]).augment(FLAT).flux, 3)


def test_windows_lie_elsewhere_in_the_frame_of_the_star():
    out = TelluricMask([(6400, 6500)], velocity=300.0).augment(FLAT)
    window = FLAT.wavelength[~out.good[0]]
    assert_allclose([window[0], window[-1]], np.array([6400, 6500]) * (1 - 300 / C_KMS), atol=1.1)
    moving = TelluricMask([(6400, 6500)], velocity=(-300, 300), random_state=0).augment(FLAT)
    first = FLAT.wavelength[np.argmin(moving.good, axis=1)]
    assert 10 < np.ptp(first) < 14


@pytest.mark.parametrize(
    "augmentation, message",
    [
        (BadPixels((0.5, 0.1)), "points must be"),
        (BadPixels(0, 0.1, run_length=(5, 2)), "run_length must be"),
        (BadPixels(observed=FLAT[:, :10]), "on the pixels of the spectra"),
        (BadPixels(observed=FLAT[:3].replace(ivar=0.0)), "no star of the observed set"),
        (TelluricMask([(6200, 6100)]), "lower < upper"),
        (TelluricMask([6200, 6100]), "lower < upper"),
    ],
)
def test_bad_input_is_told(augmentation, message):
    with pytest.raises(ValueError, match=message):
        augmentation.augment(FLAT)


def test_windows_need_wavelengths():
    with pytest.raises(ValueError, match="TelluricMask needs the wavelengths"):
        TelluricMask([(5000, 5010)]).augment(np.ones((2, 50)))
