"""Spectra of several grids on one: which grid, and what becomes of the fluxes."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra, concatenate
from skspec._common_grid import chosen_grid, common_grid, fill_meta, onto_grid


def on(wavelength, n=1, **about):
    return Spectra(np.ones((n, len(wavelength))), wavelength=wavelength, **about)


def smooth(wavelength):
    return 1 + 0.3 * np.sin(np.asarray(wavelength) / 40)


LINEAR = np.arange(5000.0, 5200.0, 0.5)
LOG = 10 ** (3.7 + 1e-4 * np.arange(400))

# -- which grid ------------------------------------------------------------------------------------


class TestCommonGrid:
    @pytest.mark.parametrize("grid", [LINEAR, LOG, LOG[::-1]])
    def test_of_all(self, grid):
        wavelength, order = common_grid([on(grid), on(grid.copy(), 3)])
        assert_array_equal(wavelength, grid)
        assert order is None

    def test_that_most_spectra_have(self):
        assert_array_equal(common_grid([on(LOG), on(LINEAR, 5), on(LINEAR[:-3], 3)])[0], LINEAR)

    def test_most_counts_spectra_and_not_parts(self):
        parts = [on(LINEAR, 5), *[on(LINEAR[k:]) for k in range(1, 5)]]
        assert_array_equal(common_grid(parts)[0], LINEAR)

    @settings(deadline=None, max_examples=40)
    @given(
        start=st.floats(3000, 20000),
        step=st.floats(1e-5, 1e-3),
        cuts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9),
    )
    def test_log_grids_of_several_ends_are_one(self, start, step, cuts):
        """As the spectra of SDSS: every pixel of the result is one of the files'."""
        full = start * np.exp(step * np.arange(200))
        parts = [on(full[low : 200 - high]) for low, high in cuts]
        wavelength, _ = common_grid(parts)
        assert len(wavelength) >= 180
        pixel = np.log(wavelength / start) / step
        assert_allclose(pixel, np.round(pixel), atol=1e-5)
        assert_allclose(np.diff(pixel), 1, atol=1e-6)

    @settings(deadline=None, max_examples=40)
    @given(
        start=st.floats(3000, 20000),
        step=st.floats(0.01, 2),
        cuts=st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9),
    )
    def test_linear_grids_of_several_ends_are_one(self, start, step, cuts):
        full = start + step * np.arange(200)
        parts = [on(full[low : 200 - high]) for low, high in cuts]
        wavelength, _ = common_grid(parts)
        pixel = (wavelength - start) / step
        assert_allclose(np.diff(wavelength), step, rtol=2e-2)
        assert pixel[0] > -0.01
        assert pixel[-1] < 199.01
        if len({len(part.wavelength) for part in parts}) == 1 == len(set(cuts)):
            assert_allclose(pixel, np.round(pixel), atol=1e-5)

    def test_median_ends_and_step(self):
        parts = [on(np.linspace(5000 + k, 5200 + 2 * k, 401)) for k in range(5)]
        wavelength, _ = common_grid(parts)
        assert_allclose(wavelength[[0, -1]], [5002, 5204])
        assert_allclose(np.diff(wavelength), 0.505, rtol=1e-2)

    def test_orders_apart(self):
        def echelle(*keep):
            grids = {k: 5000 + 100.0 * k + np.arange(0, 90, 0.5) for k in range(3)}
            order = np.concatenate([np.full(180, k) for k in keep])
            return on(np.concatenate([grids[k] for k in keep]), order=order)

        parts = [echelle(0, 1), echelle(1, 2), echelle(2), echelle(0)]
        wavelength, order = common_grid(parts)
        assert_array_equal(order, np.repeat([0, 1, 2], 180))
        assert_array_equal(wavelength, echelle(0, 1, 2).wavelength)

    def test_cameras_in_the_majority_do_not_hide_others(self):
        blue, red = (on(g, order=np.full(len(g), k)) for k, g in enumerate([LINEAR, LINEAR + 900]))
        _, order = common_grid([blue, blue, blue, red])
        assert_array_equal(np.unique(order), [0, 1])

    def test_orders_of_unequal_ends(self):
        grids = [LINEAR[:-2], LINEAR[:-4], LINEAR[:-4][1:]]
        parts = [on(g, order=np.zeros(len(g), int)) for g in grids]
        wavelength, order = common_grid(parts)
        assert_array_equal(order, 0)
        assert_allclose(wavelength[[0, -1]], LINEAR[[0, -5]])

    def test_nothing_in_common(self):
        with pytest.raises(
            ValueError, match="no wavelengths in common.*5000-5199 Angstrom.*8000-8200"
        ):
            common_grid([on(LINEAR), on(LINEAR + 3000)])

    def test_one_that_is_apart_does_not_matter(self):
        parts = [on(LINEAR[k:]) for k in range(5)]
        assert_allclose(common_grid([*parts, on(LINEAR + 3000)])[0][-1], LINEAR[-1])

    @pytest.mark.parametrize("parts", [[], [Spectra(np.ones((1, 5)))]])
    def test_without_wavelengths(self, parts):
        with pytest.raises(ValueError, match="no spectra|no wavelengths"):
            common_grid(parts)

    def test_thousands_of_grids_in_bounded_time(self):
        rng = np.random.default_rng(0)
        parts = [on(LOG * (1 + 1e-5 * rng.normal())) for _ in range(3000)]
        start = time.process_time()
        common_grid(parts)
        assert time.process_time() - start < 10


class TestChosenGrid:
    def test_quantity_and_numbers(self):
        units = pytest.importorskip("astropy.units")
        assert_allclose(chosen_grid(LINEAR / 10 * units.nm, [])[0], LINEAR)
        assert_array_equal(chosen_grid(list(LINEAR), [])[0], LINEAR)

    def test_spectra_bring_their_orders(self):
        like = on(LINEAR, order=np.repeat([3, 4], 200))
        wavelength, order = chosen_grid(like, [])
        assert_array_equal(wavelength, LINEAR)
        assert_array_equal(order, like.order)

    @pytest.mark.parametrize(
        ("grid", "match"),
        [
            ("uniform", "grid='uniform' is not known"),
            (LINEAR[::-1], "vector of increasing wavelengths"),
            (LINEAR[None], "vector of increasing wavelengths"),
            ([5000.0], "vector of increasing wavelengths"),
            ([500.0, 501.0], "is that Angstrom"),
            ([5000.0, np.nan], "vector of increasing wavelengths"),
            (Spectra(np.ones((1, 3))), "has no wavelengths"),
        ],
    )
    def test_that_is_none(self, grid, match):
        with pytest.raises(ValueError, match=match):
            chosen_grid(grid, [])


# -- onto it ---------------------------------------------------------------------------------------


class TestOntoGrid:
    def test_its_own_pixels_are_untouched(self):
        spectra = on(LINEAR, 2)
        assert onto_grid(spectra, LINEAR) is spectra

    def test_pixels_that_are_the_same_but_for_rounding(self):
        near = LINEAR * (1 + 1e-9)
        spectra = onto_grid(on(near), LINEAR)
        assert_array_equal(spectra.wavelength, LINEAR)
        assert_array_equal(spectra.flux, 1)

    def test_factor_is_divided_out_star_by_star(self):
        factor = 1 + 1e-4 * np.arange(4)
        flux = np.stack([smooth(LINEAR / f) for f in factor])
        spectra = onto_grid(Spectra(flux, wavelength=LINEAR), LINEAR[20:-20], factor=factor)
        assert_allclose(spectra.flux, np.tile(smooth(LINEAR[20:-20]), (4, 1)), atol=1e-6)

    @pytest.mark.parametrize("factor", [None, np.full(2, 1.001)])
    def test_coarser_pixels_conserve_flux(self, factor):
        rng = np.random.default_rng(0)
        flux = rng.normal(1, 0.1, (2, len(LINEAR)))
        coarse = np.arange(5010.25, 5180, 5.0)
        f = 1.0 if factor is None else factor[0]
        spectra = onto_grid(
            Spectra(flux, flux_err=0.1, wavelength=LINEAR * f), coarse, factor=factor
        )
        mean = np.stack([flux[:, (abs(LINEAR - x) < 2.5)].mean(axis=1) for x in coarse], axis=1)
        assert_allclose(spectra.flux, mean, atol=1e-9)
        assert_allclose(spectra.ivar, 10 / 0.1**2)

    def test_finer_pixels_are_cubic(self):
        fine = np.arange(5010, 5180, 0.2)
        spectra = onto_grid(Spectra(smooth(LINEAR), wavelength=LINEAR), fine)
        assert_allclose(spectra.flux[0], smooth(fine), atol=1e-6)

    def test_outside_is_bad(self):
        spectra = onto_grid(on(LINEAR), np.arange(4990.0, 5210.0, 0.5))
        assert_array_equal(spectra.wavelength[~spectra.good[0]][[0, -1]], [4990, 5209.5])
        assert np.sum(~spectra.good) == 20 + 20

    def test_order_takes_from_its_order_alone(self):
        grid = np.concatenate([LINEAR, LINEAR + 100])
        order = np.repeat([0, 1], len(LINEAR))
        spectra = Spectra(order + 1.0, wavelength=grid, order=order)
        new = np.concatenate([LINEAR + 0.1, LINEAR + 100.1])
        result = onto_grid(spectra, new, order)
        assert_allclose(result.flux[result.good], (order + 1.0)[result.good[0]])
        merged = onto_grid(spectra, np.arange(5120.0, 5180.0, 0.4))
        assert_allclose(merged.flux, 1.5)

    def test_single_precision_stays(self):
        spectra = Spectra(
            np.ones((2, 400), np.float32), ivar=np.ones((2, 400), np.float32), wavelength=LINEAR
        )
        result = onto_grid(spectra, LINEAR[5:-5] + 0.2)
        assert result.flux.dtype == result.ivar.dtype == np.float32

    def test_errors_of_tiny_fluxes_keep_their_range(self):
        spectra = Spectra(
            np.full(400, 1e-17, np.float32), flux_err=np.full(400, 1e-20), wavelength=LINEAR
        )
        result = onto_grid(spectra, LINEAR[5:-5] + 0.2)
        assert np.all(np.isfinite(result.ivar))
        assert_allclose(result.snr, 1000, rtol=0.3)

    def test_no_stars(self):
        assert onto_grid(on(LINEAR)[:0], LOG).shape == (0, len(LOG))


# -- concatenate(grid=) ----------------------------------------------------------------------------


def test_concatenate_on_a_common_grid():
    parts = [
        Spectra(smooth(g)[None], flux_err=0.01, wavelength=g, meta={"star_id": [k]} | extra)
        for k, (g, extra) in enumerate(
            [(LINEAR, {}), (LINEAR[:-3], {"rv": [3.0]}), (LINEAR, {"name": ["b"]})]
        )
    ]
    spectra = concatenate(parts, grid="common")
    assert_array_equal(spectra.wavelength, LINEAR)
    assert_array_equal(spectra.meta["star_id"], [0, 1, 2])
    assert_array_equal(spectra.meta["rv"], [np.nan, 3.0, np.nan])
    assert_array_equal(spectra.meta["name"], ["", "", "b"])
    assert_allclose(spectra.flux[:, :-3], np.tile(smooth(LINEAR[:-3]), (3, 1)), atol=1e-9)
    assert_array_equal(np.flatnonzero(~spectra.good[1]), [397, 398, 399])
    with pytest.raises(ValueError, match="different grids.*grid='common'"):
        concatenate(parts)


def test_concatenate_on_a_grid_refuses_other_media():
    parts = [on(LINEAR, medium="air"), on(LOG, medium="vacuum")]
    with pytest.raises(ValueError, match="different medium"):
        concatenate(parts, grid=np.arange(5020.0, 5100.0))


@pytest.mark.parametrize(
    ("value", "blank"),
    [(1.5, np.nan), ("a", ""), (3, -1), (True, False), ([1.0, 2.0], [np.nan, np.nan])],
)
def test_what_stands_for_missing_entries(value, blank):
    parts = [on(LINEAR, 2, meta={"x": np.array([value, value])}), on(LINEAR, meta={})]
    filled = fill_meta(parts)
    assert_array_equal(filled[1]["x"], [blank])
    assert filled[1]["x"].dtype.kind == filled[0]["x"].dtype.kind
