import pickle
import tracemalloc

import numpy as np
import pandas as pd
import pytest
from helpers import PlainRidge, memmap_kind
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.decomposition import PCA
from sklearn.model_selection import (
    GridSearchCV,
    KFold,
    cross_val_predict,
    cross_validate,
    learning_curve,
    train_test_split,
)
from sklearn.utils import resample, shuffle
from sklearn.utils.parallel import Parallel, delayed

from skspec import Spectra, concatenate


@pytest.fixture
def spectra():
    rng = np.random.default_rng(0)
    return Spectra(
        rng.uniform(0.5, 1.5, (10, 6)),
        ivar=rng.uniform(1, 100, (10, 6)),
        wavelength=np.linspace(5000, 5005, 6),
        order=[0, 0, 0, 1, 1, 1],
        meta={
            "star": [f"s{k}" for k in range(10)],
            "rv": np.arange(10.0),
            "table": pd.DataFrame({"ra": np.arange(10), "dec": 0.0}, index=list("abcdefghij")),
            "survey": "ten letter",  # as long as there are stars, and still no per-star entry
            "columns": {"a": 1},
            "flags": set(range(10)),
        },
    )


def assert_same(a, b):
    assert_array_equal(a.flux, b.flux)
    for name in ("ivar", "wavelength", "order"):
        x, y = getattr(a, name), getattr(b, name)
        assert (x is None) == (y is None)
        if x is not None:
            assert_array_equal(x, y)


# -- construction ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flux, shape",
    [
        (np.ones(5), (1, 5)),
        ([[1, 2], [3, 4]], (2, 2)),
        (np.ones((3, 0)), (3, 0)),
        (np.ones((0, 4)), (0, 4)),
        (pd.DataFrame(np.ones((2, 3))), (2, 3)),
        (np.ones((2, 3), dtype=bool), (2, 3)),
        (np.ones((2, 3), dtype=">f4"), (2, 3)),
    ],
)
def test_shapes_taken(flux, shape):
    spectra = Spectra(flux)
    assert spectra.shape == shape == np.asarray(spectra).shape
    assert len(spectra) == shape[0]
    assert spectra.size == shape[0] * shape[1]
    assert spectra.dtype == np.float64
    repr(spectra)


@pytest.mark.parametrize(
    "ivar", [3.0, np.float32(3.0), np.full(6, 3.0), np.full((2, 6), 3), [[3], [3]]]
)
def test_ivar_broadcasts(ivar):
    assert_array_equal(Spectra(np.ones((2, 6)), ivar=ivar).ivar, np.full((2, 6), 3.0))


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_data_type_is_kept(dtype):
    ones = np.ones((2, 3), dtype=dtype)
    spectra = Spectra(ones, flux_err=0.5 * ones, mask=[True, False, False])
    assert spectra.flux.dtype == spectra.ivar.dtype == spectra[0].dtype == dtype
    broken = ones.copy()
    broken[0, 0] = np.nan
    assert Spectra(broken, ivar=ones).flux.dtype == dtype


@pytest.mark.parametrize(
    "kwargs, sentence",
    [
        ({"flux": np.ones((2, 3, 4))}, "order="),
        ({"flux": 1.0}, r"must be \(stars, pixels\)"),
        ({"flux": [["a"]]}, "real numbers"),
        ({"flux": [[1j]]}, "real numbers"),
        ({"ivar": 1, "flux_err": 1}, "either ivar or flux_err"),
        ({"ivar": np.ones(4)}, "does not fit the flux"),
        ({"flux_err": np.ones((3, 3))}, "does not fit the flux"),
        ({"mask": np.ones((1, 2), bool)}, "does not fit the flux"),
        ({"wavelength": [5001, 5002]}, "give one wavelength per pixel"),
        ({"wavelength": np.full((2, 3), 5000)}, "shared by all stars"),
        ({"wavelength": [5001, np.nan, 5002]}, "NaN"),
        ({"order": [1]}, "give one order per pixel"),
        ({"flux": Spectra(np.ones((2, 3)))}, "replace"),
    ],
)
def test_mistakes_get_a_sentence(kwargs, sentence):
    with pytest.raises(ValueError, match=sentence):
        Spectra(**{"flux": np.ones((2, 3))} | kwargs)


# -- bad pixels and errors -------------------------------------------------------------------------


def test_non_finite_flux_becomes_a_bad_zero():
    flux = np.array([[1, np.nan, np.inf], [1, -np.inf, 2]])
    for ivar in (None, 5.0):
        spectra = Spectra(flux, ivar=ivar)
        assert_array_equal(spectra.flux, [[1, 0, 0], [1, 0, 2]])
        good = np.isfinite(flux)
        assert_array_equal(spectra.good, good)
        assert_array_equal(spectra.ivar[good], np.inf if ivar is None else 5.0)
    assert np.isnan(flux[0, 1])


@pytest.mark.parametrize("value, kept", [(-1, 0), (np.nan, 0), (0, 0), (np.inf, np.inf), (4, 4)])
def test_ivar_values(value, kept):
    assert Spectra([[1.0]], ivar=[[value]]).ivar == kept


@pytest.mark.parametrize("value, kept", [(-1, 0), (np.nan, 0), (0, 0), (np.inf, 0), (0.5, 4)])
def test_flux_err_values(value, kept):
    assert Spectra([[1.0]], flux_err=[[value]]).ivar == kept


def test_mask_hidden_in_masked_arrays():
    flux = np.ma.masked_equal([[1.0, 9.0, 2.0]], 9.0)
    spectra = Spectra(flux, mask=[False, False, True])
    assert type(spectra.flux) is np.ndarray
    assert_array_equal(spectra.good, [[True, False, False]])
    nan = np.ma.masked_invalid([[1.0, np.nan, 2.0]])
    assert_array_equal(Spectra(nan).good, [[True, False, True]])
    assert_array_equal(Spectra(np.ones((1, 3)), ivar=nan).good, [[True, False, True]])
    assert_array_equal(Spectra(np.ones((1, 3)), flux_err=nan).ivar, [[1, 0, 0.25]])


@pytest.mark.parametrize("name", ["flux", "flux_err", "ivar"])
@pytest.mark.parametrize("of", [list, tuple])
def test_masks_in_a_list(name, of):
    """As astropy's and others' tables hand out, one masked array per star."""
    rows = of([np.ma.array([1.0, 9.0, 1.0], mask=[0, 1, 0]), np.array([1.0, 1.0, 1.0])])
    spectra = Spectra(**({"flux": np.ones((2, 3))} | {name: rows}))
    assert_array_equal(spectra.good, [[True, False, True], [True, True, True]])


def test_what_is_masked_in_a_mask_is_bad():
    mask = np.ma.array([False, False, True], mask=[True, False, False])
    hidden = np.ma.array(np.ones(3), mask=[False] * 3)
    for flux in (np.ones(3), hidden):
        assert_array_equal(Spectra(flux, mask=mask).good, [[False, True, False]])


@pytest.mark.parametrize("name", ["wavelength", "order"])
def test_masked_wavelengths_and_orders(name):
    values = np.ma.array([5000, -9999, 5002], mask=[False, True, False])
    with pytest.raises(ValueError, match=f"{name} is masked in places"):
        Spectra(np.ones(3), **{name: values})
    whole = Spectra(np.ones(3), **{name: np.ma.array([5000, 5001, 5002])})
    assert_array_equal(getattr(whole, name), [5000, 5001, 5002])


def test_masked_resolution_is_not_known():
    values = np.ma.array([[1800.0], [-9999.0]], mask=[[False], [True]])
    assert_array_equal(Spectra(np.ones((2, 3)), resolution=values).resolution, [[1800], [np.nan]])


def test_polars():
    polars = pytest.importorskip("polars")
    spectra = Spectra(polars.DataFrame([[1.0, None], [3.0, 4.0]], orient="row"))
    assert_array_equal(spectra.flux, [[1, 0], [3, 4]])
    assert_array_equal(spectra.good, [[True, False], [True, True]])


def test_quantities_in_a_list():
    units = pytest.importorskip("astropy.units")
    rows = [[1.0, 2.0] * units.Jy, [3.0, 4.0] * units.Jy]
    assert Spectra(rows).flux_unit == "Jy"
    assert_array_equal(Spectra(rows).flux, [[1, 2], [3, 4]])
    with pytest.raises(ValueError, match="in Jy and mJy: convert"):
        Spectra([rows[0], rows[1].to("mJy")])


def test_errors_follow_a_flux_of_another_unit():
    units = pytest.importorskip("astropy.units")
    spectra = Spectra([1.0, 2.0] * units.Jy, flux_err=[0.1, 0.1] * units.Jy)
    other = spectra.replace(flux=[1000.0, 2000.0] * units.mJy)
    assert other.flux_unit == "mJy"
    assert_allclose(other.flux_err, 100)
    assert_allclose(spectra.replace(flux=[1.0, 2.0] * units.Jy).ivar, spectra.ivar)
    with pytest.raises(ValueError, match="in 'K', and the errors are those of a flux in 'Jy'"):
        spectra.replace(flux=[1.0, 2.0] * units.K)
    given = spectra.replace(flux=[1.0, 2.0] * units.K, flux_err=[1.0, 1.0] * units.K)
    assert_allclose(given.flux_err, 1)


@pytest.mark.parametrize("error", [1e-25, 1e-19, 1.0, 1e25])
def test_single_precision_errors_of_any_unit(error):
    spectra = Spectra(
        np.full((1, 2), 9 * error, np.float32), flux_err=np.full((1, 2), error, np.float32)
    )
    assert spectra.good.all()
    assert_allclose(spectra.flux_err, error, rtol=1e-6)


def test_no_errors():
    spectra = Spectra(np.ones((2, 3)))
    assert spectra.ivar is None
    assert not spectra.has_errors
    assert spectra.good.all()
    assert_array_equal(spectra.flux_err, 0)
    assert np.isnan(spectra.snr).all()
    assert not Spectra(np.ones((2, 3)), mask=[True, False, False]).has_errors


def test_variance_and_snr():
    spectra = Spectra([[2.0, -4.0, 8.0], [1, 1, 1]], flux_err=[[0.5, 1, 1], [0, 0, 0]])
    assert_array_equal(spectra.variance, [[0.25, 1, 1], [np.inf] * 3])
    assert_array_equal(spectra.snr, [4, np.nan])


@settings(max_examples=50, deadline=None)
@given(
    flux=hnp.arrays(float, (3, 4), elements=st.floats(allow_nan=True, allow_infinity=True)),
    ivar=hnp.arrays(float, (3, 4), elements=st.floats(allow_nan=True, allow_infinity=True)),
    mask=hnp.arrays(bool, (3, 4)),
)
def test_whatever_comes_in_is_clean(flux, ivar, mask):
    before = flux.copy(), ivar.copy(), mask.copy()
    spectra = Spectra(flux, ivar=ivar, mask=mask)
    assert np.isfinite(spectra.flux).all()
    assert (spectra.ivar >= 0).all()
    assert not np.any(spectra.good & ~(np.isfinite(flux) & (ivar > 0) & ~mask))
    for now, then in zip((flux, ivar, mask), before):
        assert_array_equal(now, then)
    assert_same(Spectra(spectra.flux, ivar=spectra.ivar), spectra)


@settings(max_examples=50, deadline=None)
@given(
    flux=hnp.arrays(float, (3, 4), elements=st.floats(1, 100)),
    ivar=hnp.arrays(
        float, (3, 4), elements=st.floats(1e-4, 1e8) | st.sampled_from([0, -1, np.inf])
    ),
    mask=hnp.arrays(bool, (3, 4)),
)
def test_no_useful_pixel_is_lost(flux, ivar, mask):
    assert_array_equal(Spectra(flux, ivar=ivar, mask=mask).good, (ivar > 0) & ~mask)


@pytest.mark.parametrize("unit", [1.0, 1e-17, 1e25])
@pytest.mark.parametrize("bad", [1.1e9, 1e11, 1e30])
def test_a_pixel_without_information_is_bad(bad, unit):
    flux, error = np.full((3, 50), 100.0), np.ones((3, 50))
    error[0, :5] = error[1] = bad  # a gap; a star without any
    spectra = Spectra(flux * unit, flux_err=error * unit)
    expected = np.ones((3, 50), bool)
    expected[0, :5] = False
    expected[1] = bad < 1e10
    assert_array_equal(spectra.good, expected)


@pytest.mark.parametrize("flux", [0.01, 1.0, 1500.0, 5e5])
def test_ten_billion_marks_a_bad_pixel(flux):
    error = np.full((1, 50), 0.01 * flux)
    error[0, 7] = 1e10
    assert np.flatnonzero(~Spectra(np.full((1, 50), flux), flux_err=error).good[0]).tolist() == [7]


# -- slicing ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "rows",
    [
        slice(2, 5),
        slice(None, None, -1),
        [3, 1, 1],
        np.array([3, 1], np.uint8),
        [],
        range(3),
        np.arange(10) % 2 == 0,
        [True] * 4 + [False] * 6,
        pd.Index([4, 2]),
        pd.Series([4, 2]),
    ],
)
def test_rows(spectra, rows):
    part = spectra[rows]
    everyone = pd.Series(range(10))
    index = (everyone[rows] if isinstance(rows, slice) else everyone[list(rows)]).to_numpy(int)
    assert_array_equal(part.flux, spectra.flux[index])
    assert_array_equal(part.ivar, spectra.ivar[index])
    assert_array_equal(part.meta["rv"], index)
    assert list(part.meta["star"]) == [f"s{k}" for k in index]
    assert_array_equal(part.meta["table"]["ra"], index)
    assert part.meta["survey"] == "ten letter"
    assert part.meta["columns"] == {"a": 1}
    assert part.meta["flags"] == set(range(10))
    assert_array_equal(part.wavelength, spectra.wavelength)
    assert_array_equal(part.order, spectra.order)


@pytest.mark.parametrize("row", [0, 3, -1, np.int64(-10), np.array(3)])
def test_one_star_keeps_two_axes(spectra, row):
    assert spectra[row].shape == (1, 6)
    assert_array_equal(spectra[row].flux[0], spectra.flux[row])
    assert spectra[row].meta["rv"] == np.arange(10)[row]


@pytest.mark.parametrize(
    "pixels, expected",
    [(slice(1, 3), [1, 2]), ([4, 0], [4, 0]), (np.arange(6) > 3, [4, 5]), (2, [2]), (-1, [5])],
)
def test_pixels(spectra, pixels, expected):
    for part in (spectra[:, pixels], spectra[..., pixels]):
        assert_array_equal(part.flux, spectra.flux[:, expected])
        assert_array_equal(part.ivar, spectra.ivar[:, expected])
        assert_array_equal(part.wavelength, spectra.wavelength[expected])
        assert_array_equal(part.order, spectra.order[expected])
    assert spectra[[1, 2], pixels].shape == (2, len(expected))
    assert spectra[[1, 2], ...].shape == (2, 6)


@pytest.mark.parametrize(
    "key",
    [10, -11, [True, False], [[0, 1]], "star", 1.0, True, (0, 0, 0), (0, 6), np.arange(6) > 2],
)
def test_index_errors(spectra, key):
    with pytest.raises(IndexError):
        spectra[key]


def test_iteration_stops(spectra):
    assert [star.meta["rv"][0] for star in spectra] == list(range(10))


def test_slices_are_views_and_never_touch_the_parent(spectra):
    assert np.shares_memory(spectra[2:5].flux, spectra.flux)
    before = spectra.flux.copy()
    spectra[[1, 2]].flux[:] = 0
    assert_array_equal(spectra.flux, before)


def test_window(spectra):
    part = spectra.window(5001, 5003)
    assert_array_equal(part.wavelength, [5001, 5002, 5003])
    with pytest.raises(ValueError, match="cover 5000.0-5005.0"):
        spectra.window(1, 2)
    with pytest.raises(ValueError, match="no wavelength"):
        Spectra(np.ones((1, 2))).window(1, 2)


def test_replace(spectra):
    other = spectra.replace(flux=2 * spectra.flux, mask=np.arange(6) == 1)
    assert_array_equal(other.flux, 2 * spectra.flux)
    assert_array_equal(other.ivar[:, 1], 0)
    assert_array_equal(other.ivar[:, 2], spectra.ivar[:, 2])
    assert_allclose(spectra.replace(flux_err=0.5).ivar, 4)
    assert spectra.replace(ivar=None).ivar is None
    assert other.meta["star"] == spectra.meta["star"]


def test_repr(spectra):
    assert repr(Spectra(np.ones((1, 3)))) == "<Spectra: 1 star x 3 pixels, no errors>"
    assert "2 orders" in repr(spectra)
    assert "5000.0-5005.0 Angstrom" in repr(spectra)
    assert "33.3 % bad" in repr(Spectra(np.ones((1, 3)), mask=[True, False, False]))
    for empty in (spectra[:0], spectra[:, []]):
        assert "Spectra" in repr(empty)


# -- concatenate -----------------------------------------------------------------------------------


def test_concatenate_undoes_slicing(spectra):
    again = concatenate(s for s in (spectra[:3], spectra[3], spectra[4:]))
    assert_same(again, spectra)
    assert list(again.meta["star"]) == spectra.meta["star"]


def test_concatenate_with_and_without_errors():
    both = concatenate([Spectra(np.ones((1, 2))), Spectra(np.ones((2, 2)), ivar=3.0)])
    assert_array_equal(both.ivar[:, 0], [np.inf, 3, 3])
    assert concatenate([Spectra(np.ones((1, 2)))] * 2).ivar is None


def test_concatenate_holds_what_it_is_given_once():
    def parts():
        for k in range(8):
            yield Spectra(np.full((50, 1000), k), ivar=np.ones((50, 1000)), meta={"k": [k] * 50})

    tracemalloc.start()
    whole = concatenate(parts(), n_stars=400)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * (whole.flux.nbytes + whole.ivar.nbytes)
    assert_array_equal(whole.flux[:, 0], np.repeat(np.arange(8), 50))
    assert_array_equal(whole.meta["k"], whole.flux[:, 0])


@pytest.mark.parametrize("n_stars", [7, 9])
def test_concatenate_of_another_number_of_stars(n_stars):
    with pytest.raises(ValueError, match=f"n_stars={n_stars} is not the number"):
        concatenate([Spectra(np.ones((4, 2)))] * 2, n_stars=n_stars)


def test_concatenate_of_single_and_double_precision():
    parts = [Spectra(np.ones((1, 2), dtype), ivar=np.ones((1, 2), dtype)) for dtype in "fd"]
    for some in (parts, parts[::-1]):
        whole = concatenate(some)
        assert whole.dtype == whole.ivar.dtype == np.float64


def test_concatenate_refuses(spectra):
    with pytest.raises(ValueError, match="empty"):
        concatenate([])
    for other in (
        spectra[:, 1:],
        spectra.replace(wavelength=None),
        spectra.replace(order=np.arange(6)),
        spectra.replace(wavelength=spectra.wavelength + 1),
    ):
        with pytest.raises(ValueError, match="different grids"):
            concatenate([spectra, other])


# -- memory, pickling, processes -------------------------------------------------------------------


def test_arrays_are_not_copied_or_written(tmp_path):
    flux = np.lib.format.open_memmap(tmp_path / "flux.npy", "w+", np.float32, (5, 4))
    flux[:] = 1
    ivar = np.ones((5, 4))
    ivar.flags.writeable = flux.flags.writeable = False
    spectra = Spectra(flux, ivar=ivar)
    assert np.shares_memory(spectra.flux, flux)
    assert np.shares_memory(np.asarray(spectra), flux)
    assert np.shares_memory(spectra[1:3].flux, flux)
    assert np.shares_memory(spectra.ivar, ivar)
    assert not np.shares_memory(Spectra(flux, ivar=ivar, mask=[1, 0, 0, 0]).ivar, ivar)
    assert_array_equal(ivar, 1)
    assert not np.shares_memory(np.array(spectra), flux)


def test_pickle(spectra):
    again = pickle.loads(pickle.dumps(spectra))
    assert_same(again, spectra)
    assert again.meta["star"] == spectra.meta["star"]


def test_workers_get_memory_maps():
    big = Spectra(np.ones((400, 500)), ivar=np.ones((400, 500)))
    kinds = Parallel(n_jobs=2, max_nbytes=1000)(delayed(memmap_kind)(big) for _ in range(2))
    assert kinds == [(True, True)] * 2


# -- through scikit-learn, untouched ---------------------------------------------------------------


@pytest.fixture
def labelled():
    rng = np.random.default_rng(1)
    flux = rng.normal(size=(60, 6))
    return Spectra(flux, ivar=flux**2 + 1, wavelength=5000 + np.arange(6.0)), flux[:, 0] + 2 * flux[
        :, 1
    ]


def test_splitters_and_shuffles(labelled):
    spectra, y = labelled
    parts = train_test_split(spectra, y, test_size=0.25, random_state=0)
    assert [type(p) for p in parts[:2]] == [Spectra, Spectra]
    for part in (*parts[:2], shuffle(spectra, random_state=0), resample(spectra, random_state=0)):
        assert_allclose(part.ivar, part.flux**2 + 1)
        assert_array_equal(part.wavelength, spectra.wavelength)
    for train, test in KFold(3).split(spectra):
        assert len(spectra[train]) + len(spectra[test]) == 60


@pytest.mark.parametrize("n_jobs", [1, 2])
def test_errors_arrive_at_test_time(labelled, n_jobs):
    spectra, y = labelled
    model = PlainRidge(1e-9)  # raises when the errors get lost
    search = GridSearchCV(model, {"alpha": [1e-9, 1e3]}, n_jobs=n_jobs, error_score="raise")
    search.fit(spectra, y)
    assert search.best_params_ == {"alpha": 1e-9}
    assert_allclose(search.predict(spectra), y)
    assert_allclose(cross_val_predict(model, spectra, y, n_jobs=n_jobs), y)
    scores = cross_validate(model, spectra, y, n_jobs=n_jobs, error_score="raise")
    assert_allclose(scores["test_score"], 1)
    _, _, test = learning_curve(model, spectra, y, n_jobs=n_jobs, error_score="raise")
    assert_allclose(test[1:], 1)  # the smallest training set has fewer stars than pixels


def test_stock_transformers_read_the_flux(labelled):
    spectra, _ = labelled
    assert_allclose(PCA(2).fit_transform(spectra), PCA(2).fit_transform(spectra.flux))


def test_concatenate_keeps_a_resolution_of_each_pixel():
    part = Spectra(np.ones((2, 3)), wavelength=[5000, 5001, 5002], resolution=[1e3, 2e3, 3e3])
    assert_array_equal(concatenate([part, part]).resolution, [1e3, 2e3, 3e3])
    other = part.replace(resolution=1500.0)
    assert_array_equal(
        concatenate([part, other]).resolution, [[1e3, 2e3, 3e3]] * 2 + [[1500] * 3] * 2
    )
