"""Reading and writing: round trips, where errors come from, real files, mistakes."""

import os
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from skspec.datasets import load_spectra, make_spectra, save_spectra
from skspec.spectra import Spectra

REAL_DATA = Path(
    os.environ.get("SKSPEC_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")
)


@pytest.fixture
def plain():
    """A small file's arrays, to be spoilt."""
    rng = np.random.default_rng(0)
    return {
        "flux": rng.uniform(1, 2, (4, 6)),
        "wavelength": np.linspace(5000, 5005, 6),
        "labels": rng.normal(size=(4, 2)),
        "label_names": np.array(["teff", "feh"]),
        "star_id": np.array(["a", "b", "c", "c"]),
        "snr": np.array([10.0, 20, 30, 40]),
    }


@pytest.fixture
def write(tmp_path):
    def write(**contents):
        path = tmp_path / "stars.npz"
        np.savez_compressed(path, **contents)
        return path

    return write


numbers = st.floats(-1e6, 1e6, width=32)
shapes = st.tuples(st.integers(1, 4), st.integers(2, 5))


@given(st.data(), shapes, st.sampled_from([np.float32, np.float64]), st.booleans(), st.booleans())
@settings(max_examples=40, deadline=None)
def test_round_trip_is_exact(tmp_path_factory, data, shape, dtype, with_errors, with_orders):
    flux = data.draw(arrays(dtype, shape, elements=numbers))
    errors = arrays(dtype, shape, elements=st.sampled_from([0.0, 1.0, 2.5, np.inf]))
    labels = data.draw(arrays(float, (shape[0], 2), elements=st.floats(-1e9, 1e9)))
    spectra = Spectra(
        flux,
        ivar=data.draw(errors) if with_errors else None,
        wavelength=np.linspace(4000, 5000, shape[1]) if with_orders else None,
        order=np.arange(shape[1]) if with_orders else None,
        meta={"name": np.arange(shape[0]).astype(str), "note": "not per star"},
    )
    frame = pd.DataFrame(labels, columns=["teff", "logg"])
    path = save_spectra(tmp_path_factory.mktemp("trip") / "file", spectra, frame)
    assert path.suffix == ".npz"
    again, frame_again = load_spectra(path)
    pd.testing.assert_frame_equal(frame_again, frame, check_exact=True)
    for name in ("flux", "ivar", "wavelength", "order"):
        one, other = getattr(spectra, name), getattr(again, name)
        assert (one is None) == (other is None)
        if one is not None:
            assert one.dtype == other.dtype
            np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.meta["name"], spectra.meta["name"])
    assert "note" not in again.meta


def test_round_trip_of_made_spectra(tmp_path):
    spectra, labels = make_spectra(3, n_pixels=30, bad_pixel_fraction=0.2, random_state=0)
    again, labels_again = load_spectra(save_spectra(tmp_path / "made.npz", spectra, labels))
    np.testing.assert_array_equal(again.ivar, spectra.ivar)
    np.testing.assert_array_equal(again.meta["snr"], spectra.meta["snr"])
    assert labels_again.equals(labels)


def test_partly_labelled(tmp_path):
    labels = pd.DataFrame({"teff": [5000.0, np.nan, 5500.0], "feh": [np.nan, np.nan, 0.1]})
    path = save_spectra(tmp_path / "some.npz", Spectra(np.ones((3, 4))), labels)
    _, frame = load_spectra(path)
    assert frame["teff"].tolist() == [5500.0]
    assert load_spectra(path, ["teff"])[1]["teff"].tolist() == [5000.0, 5500.0]
    _, everyone = load_spectra(path, labelled_only=False)
    pd.testing.assert_frame_equal(everyone, labels)


def test_unlabelled_rows_are_dropped_and_meta_follows(plain, write):
    path = write(**plain, has_labels=[True, False, True, True])
    spectra, labels, groups = load_spectra(path, ["feh"], return_groups=True)
    assert groups.tolist() == ["a", "c", "c"]
    assert spectra.meta["snr"].tolist() == [10, 30, 40]
    assert spectra[1:].meta["snr"].tolist() == [30, 40]
    np.testing.assert_array_equal(labels["feh"], plain["labels"][[0, 2, 3], 1])
    np.testing.assert_array_equal(spectra.flux, plain["flux"][[0, 2, 3]])


def test_wavelength_range(plain, write):
    spectra, _ = load_spectra(write(**plain), wavelength_range=(5001, 5003))
    assert spectra.wavelength.tolist() == [5001, 5002, 5003]


def test_group_id_comes_before_star_id(plain, write):
    path = write(**plain, group_id=[1, 1, 2, 2])
    assert load_spectra(path, return_groups=True)[2].tolist() == [1, 1, 2, 2]


class TestErrors:
    """`ivar` of whichever flux is asked for, from whatever errors the file has."""

    def test_normalised_flux_first_with_its_own_errors(self, plain, write):
        path = write(**plain, flux_norm=plain["flux"] / 2, ivar_norm=np.full((4, 6), 9.0))
        np.testing.assert_array_equal(load_spectra(path)[0].flux, plain["flux"] / 2)
        np.testing.assert_array_equal(load_spectra(path)[0].ivar, 9.0)
        np.testing.assert_allclose(load_spectra(path, flux="flux")[0].ivar, 9 / 4)

    def test_errors_scale_with_the_continuum(self, plain, write):
        path = write(**plain, flux_norm=plain["flux"] / 2, ivar=np.full((4, 6), 9.0))
        np.testing.assert_allclose(load_spectra(path)[0].ivar, 36.0)
        np.testing.assert_array_equal(load_spectra(path, flux="flux")[0].ivar, 9.0)

    def test_zero_normalised_flux_is_bad(self, plain, write):
        norm = plain["flux"] / 2
        norm[1, 2] = 0
        spectra, _ = load_spectra(write(**plain, flux_norm=norm, ivar=np.ones((4, 6))))
        assert spectra.ivar[1, 2] == 0
        assert np.sum(spectra.ivar == 0) == 1

    def test_flux_err(self, plain, write):
        error = np.full((4, 6), 0.5)
        error[0, :4] = [0, -1, np.nan, 1e9]
        spectra, _ = load_spectra(write(**plain, flux_err=error))
        assert np.all(spectra.ivar[0, :4] == 0)
        assert np.all(spectra.ivar[1:] == 4)
        both, _ = load_spectra(write(**plain, flux_err=error, ivar=np.full((4, 6), 7.0)))
        assert np.all(both.ivar[0, :4] == 0)
        assert np.all(both.ivar[1:] == 7)

    def test_noise_shape(self, plain, write):
        shape = np.linspace(1, 2, 6)
        spectra, _ = load_spectra(write(**plain, noise_shape=shape))
        np.testing.assert_allclose(spectra.flux_err, shape / plain["snr"][:, None])

    def test_none(self, plain, write):
        assert load_spectra(write(**plain))[0].ivar is None


@pytest.mark.parametrize(
    ("spoil", "arguments", "message"),
    [
        ({"flux": None}, {}, "has no flux_norm or flux"),
        ({}, {"flux": "flux_norm"}, "has no flux_norm"),
        ({}, {"flux": "fluxes"}, "fluxes"),
        ({"flux": np.ones(6)}, {}, r"not \(stars, pixels\)"),
        ({"wavelength": np.ones(5)}, {}, "wavelength has shape"),
        ({"order": np.ones(5, int)}, {}, "order has shape"),
        ({"ivar": np.ones((4, 5))}, {}, "must agree"),
        ({"label_names": None}, {}, "no label_names"),
        ({"label_names": np.array(["teff"])}, {}, r"it must be \(4, 1\)"),
        ({"has_labels": np.ones(3, bool)}, {}, "has_labels has shape"),
        ({"labels": None}, {"labels": ["teff"]}, "has no labels"),
        ({}, {"labels": ["teff", "mg"]}, r"no labels \['mg'\]"),
        ({"star_id": None}, {"return_groups": True}, "has no star_id"),
        ({}, {"wavelength_range": (1, 2)}, "No pixel"),
    ],
)
def test_mistakes_get_a_sentence(plain, write, spoil, arguments, message):
    contents = {key: value for key, value in (plain | spoil).items() if value is not None}
    with pytest.raises(ValueError, match=message):
        load_spectra(write(**contents), **arguments)


def test_missing_and_foreign_files(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file"):
        load_spectra(tmp_path / "nothing.npz")
    for name, content in (("text.npz", b"not an archive"), ("empty.npz", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match="not an .npz file"):
            load_spectra(tmp_path / name)
    np.save(tmp_path / "array.npy", np.ones(3))
    with pytest.raises(ValueError, match="not an .npz file"):
        load_spectra(tmp_path / "array.npy")
    np.savez(tmp_path / "objects.npz", flux=np.array([{}, {}], dtype=object))
    with pytest.raises(ValueError, match="not an .npz file"):
        load_spectra(tmp_path / "objects.npz")


def test_what_cannot_be_saved(tmp_path):
    spectra = Spectra(np.ones((2, 3)))
    with pytest.raises(ValueError, match="one row per star"):
        save_spectra(tmp_path / "a", spectra, pd.DataFrame({"teff": [1.0]}))
    for meta in ({"flux": np.ones(2)}, {"thing": [{}, {}]}):
        with pytest.raises(ValueError, match="cannot be stored"):
            save_spectra(tmp_path / "a", Spectra(np.ones((2, 3)), meta=meta))


real = pytest.mark.skipif(not REAL_DATA.is_dir(), reason="SKSPEC_DATA: no real spectra here")


@real
@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "n", "labels", "has_errors"),
    [
        ("miles/miles", 690, ["teff", "logg", "feh"], False),
        ("stelib/stelib", 94, ["teff", "logg", "feh"], False),
        ("lamost_dr1/lamost_dr1", 88, ["teff", "logg", "feh"], True),
        ("lamost_dr1/lamost_dr1_unlabelled", 45, [], True),
        ("lamost_repeats/lamost_repeats", 160, [], True),
        ("lamost_dr7_unlabelled/lamost_dr7_unlabelled", 67, [], True),
        ("indous_sdss/indous_sdss", 19, ["teff", "logg", "feh"], False),
        ("kurucz_sdss/kurucz_sdss", 89, ["teff", "logg", "feh"], False),
        ("optical_common/optical_common", 891, ["teff", "logg", "feh"], False),
        ("optical_common/kurucz_common", 89, ["teff", "logg", "feh"], False),
        ("apogee_giants100/apogee_giants100", 503, ["teff", "logg", "m_h"], True),
        ("apogee_mdwarfs/apogee_mdwarfs", 25, ["teff", "logg", "log_vmicro", "m_h"], True),
        ("apogee_rvsynth/apogee_rvsynth", 96, ["teff", "logg", "feh"], False),
        ("btsettl_apogee/btsettl_apogee", 271, ["teff", "logg", "mh", "alpham"], False),
        ("gaia_benchmark_highres/gaia_benchmark_highres", 7, ["teff", "logg", "feh"], False),
    ],
)
def test_real_files(name, n, labels, has_errors):
    path = REAL_DATA / f"{name}.npz"
    if not path.is_file():
        pytest.skip(f"no {path}")
    spectra, frame = load_spectra(path)
    assert len(spectra) == len(frame) == n
    assert list(frame) == labels
    assert spectra.has_errors == has_errors
    assert np.all(np.isfinite(spectra.flux))
    assert not frame.isna().any().any()
    assert (spectra.wavelength is None) == (name.startswith("apogee_giants"))


@real
@pytest.mark.slow
def test_giants_hide_their_bad_pixels():
    spectra, _ = load_spectra(REAL_DATA / "apogee_giants100/apogee_giants100.npz")
    assert 10 < np.sum(spectra.ivar == 0) < 100


@real
@pytest.mark.slow
def test_the_sketch_resembles_the_real_sun():
    """Calibration of the forest: mean depression of 100 Angstrom bins within a third or 0.02."""
    from scipy.ndimage import gaussian_filter1d

    from skspec.datasets import synthesize

    path = REAL_DATA / "gaia_benchmark_highres/gaia_benchmark_highres.npz"
    spectra, labels = load_spectra(path, wavelength_range=(4830, 5700))
    sun = labels.iloc[0].to_dict()
    model = synthesize(sun, spectra.wavelength, resolution=8000, medium="air")[0]
    sigma = 5265 / 8000 / 2.355 / 0.05  # pixels of 0.05 Angstrom
    real_sun = gaussian_filter1d(spectra.flux[0].astype(float), sigma)
    assert np.corrcoef(model, real_sun)[0, 1] > 0.65  # the forest is invented
    for start in range(4850, 5650, 100):
        here = (spectra.wavelength >= start) & (spectra.wavelength < start + 100)
        assert np.mean(1 - model[here]) == pytest.approx(
            np.mean(1 - real_sun[here]), rel=0.33, abs=0.02
        )


# -- other names of what is there for every pixel ----------------------------------------------------


@pytest.mark.parametrize("name", ["flux_err", "error", "err", "sigma", "uncertainty", "ERROR"])
def test_errors_under_other_names(plain, write, name):
    spectra, _ = load_spectra(write(**plain, **{name: np.full((4, 6), 0.1)}))
    np.testing.assert_allclose(spectra.ivar, 100.0)
    assert name not in spectra.meta


@pytest.mark.parametrize("kind", [bool, np.int16, float])
def test_masks_are_honoured(plain, write, kind):
    mask = np.zeros((4, 6), dtype=kind)
    mask[1, 2], mask[3, 0] = 1, 4 if kind is np.int16 else 1
    spectra, _ = load_spectra(write(**plain, mask=mask))
    np.testing.assert_array_equal(spectra.good, mask == 0)
    shared, _ = load_spectra(write(**plain, mask=mask[1]))
    np.testing.assert_array_equal(shared.good, np.tile(mask[1] == 0, (4, 1)))


@pytest.mark.parametrize("n_pixels", [6, 40, 4000])
@pytest.mark.parametrize("name", ["mask", "bad", "Quality", "flags", "good", "sigma", "variance"])
def test_what_pixels_have_whatever_their_number(write, n_pixels, name):
    """Arrays of many columns are not carried along; these are no such."""
    bad = np.zeros((4, n_pixels), bool)
    bad[:2, 3] = True
    values = {
        "good": ~bad,
        "sigma": np.where(bad, 0, 0.1),
        "variance": np.where(bad, 0, 0.01),
    }.get(name, bad)
    spectra, _ = load_spectra(write(flux=np.ones((4, n_pixels)), **{name: values}))
    np.testing.assert_array_equal(spectra.good, ~bad)
    if name in ("sigma", "variance"):
        np.testing.assert_allclose(spectra.flux_err[2], 0.1)


@pytest.mark.parametrize("name, medium", [("wave_vac", "vacuum"), ("wavelength_air", "air")])
def test_medium_by_a_name(plain, write, name, medium):
    expected = plain.pop("wavelength")
    spectra, _ = load_spectra(write(**plain, **{name: expected}))
    np.testing.assert_array_equal(spectra.wavelength, expected)
    assert spectra.medium == medium


def test_short_wavelengths(plain, write, tmp_path):
    """Nanometre without a word are asked for; the far ultraviolet is saved with its unit."""
    wavelength = np.linspace(1200, 1205, 6)
    with pytest.raises(ValueError, match=r"from 1200 to 1205: is that Angstrom\?.*'nm'"):
        load_spectra(write(**plain | {"wavelength": wavelength}))
    spectra = Spectra(plain["flux"], wavelength=wavelength, wavelength_unit="Angstrom")
    again, _ = load_spectra(save_spectra(tmp_path / "fuv.npz", spectra))
    np.testing.assert_array_equal(again.wavelength, wavelength)


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("wavelength_nm", np.linspace(500, 500.5, 6)),
        ("wave [micron]", np.linspace(0.5, 0.5005, 6)),
        ("wave", np.linspace(5000, 5005, 6)),
        ("lambda", np.tile(np.linspace(5000, 5005, 6), (4, 1))),
        ("loglam", np.log10(np.linspace(5000, 5005, 6))),
    ],
)
def test_wavelengths_under_other_names(plain, write, name, values):
    expected = plain.pop("wavelength")
    spectra, _ = load_spectra(write(**plain, **{name: values}))
    np.testing.assert_allclose(spectra.wavelength, expected, rtol=1e-12)


def test_wavelengths_in_another_unit(plain, write):
    expected = plain["wavelength"]
    contents = plain | {"wavelength": expected / 10, "wavelength_unit": "nm"}
    spectra, _ = load_spectra(write(**contents))
    np.testing.assert_allclose(spectra.wavelength, expected, rtol=1e-12)


@pytest.mark.parametrize(
    ("more", "sentence"),
    [
        ({"sigma": np.ones((4, 6)), "error": np.ones((4, 6))}, "holds both sigma and error"),
        ({"wave": np.linspace(5000, 5005, 6)}, "holds both wavelength and wave"),
        ({"mask": np.ones((4, 6), bool)}, "mask marks 100 % of the pixels"),
        ({"mask": np.full((4, 6), 0.5)}, "mask holds float64 other than 0 and 1"),
        ({"sigma": np.ones((6, 4))}, "sigma has shape"),
        ({"sigma": np.ones((4, 20))}, "sigma has shape"),
    ],
)
def test_ambiguous_names_are_refused(plain, write, more, sentence):
    with pytest.raises(ValueError, match=sentence):
        load_spectra(write(**plain, **more))


def test_wavelengths_that_are_none(plain, write):
    wavelength = plain.pop("wavelength")
    with pytest.raises(ValueError, match="is that Angstrom"):
        load_spectra(write(**plain, wave=wavelength / 10))
    with pytest.raises(ValueError, match="not log10 of Angstrom"):
        load_spectra(write(**plain, loglam=np.log(wavelength)))
    with pytest.raises(ValueError, match="differs from star to star"):
        load_spectra(write(**plain, wave=wavelength + np.arange(4)[:, None]))


def test_one_number_per_star_is_no_error_of_pixels(plain, write):
    spectra, _ = load_spectra(write(**plain, sigma=np.arange(4.0)))
    assert spectra.ivar is None
    np.testing.assert_array_equal(spectra.meta["sigma"], np.arange(4.0))
    square = {name: plain[name][:, :4] for name in ("flux",)} | {"sigma": np.ones(4)}
    with pytest.raises(ValueError, match="may be of 4 stars or of 4 pixels"):
        load_spectra(write(**square))


def test_tiny_errors_in_single_precision(plain, write):
    flux = (plain["flux"] * 1e-18).astype(np.float32)
    error = np.full((4, 6), 1e-20, np.float32)
    error[0, 0] = 1e10
    spectra, _ = load_spectra(write(**plain | {"flux": flux}, flux_err=error))
    assert not spectra.good[0, 0] and spectra.good.sum() == 23
    np.testing.assert_allclose(spectra.snr, np.median(flux / 1e-20, axis=1), rtol=0.2)
    norm = (plain["flux"] / 2).astype(np.float32)
    spectra, _ = load_spectra(write(**plain | {"flux": flux}, flux_norm=norm, flux_err=error))
    np.testing.assert_allclose(spectra.ivar[1], (flux[1] / norm[1] / 1e-20) ** 2.0, rtol=1e-5)


def test_a_mask_in_meta_is_not_stored_under_its_name(tmp_path):
    spectra = Spectra(np.ones((3, 5)), meta={"mask": np.zeros((3, 5), bool)})
    with pytest.raises(ValueError, match="reserved"):
        save_spectra(tmp_path / "stars.npz", spectra)


def test_masked_labels_are_stored_as_missing(tmp_path):
    spectra = Spectra(np.ones((3, 5)))
    labels = np.ma.array([[5000.0, 1], [-9999, 2], [6000, -9999]], mask=[[0, 0], [1, 0], [0, 1]])
    path = save_spectra(tmp_path / "stars.npz", spectra, labels)
    again = load_spectra(path, labelled_only=False)[1]
    expected = pd.DataFrame({"label_0": [5000, np.nan, 6000], "label_1": [1, 2, np.nan]})
    pd.testing.assert_frame_equal(again, expected)
