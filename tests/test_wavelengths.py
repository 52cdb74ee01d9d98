import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline

from skspec import Spectra, air_to_vacuum, concatenate, vacuum_to_air
from skspec._wavelengths import pixel_difference, to_angstrom
from skspec.augmentation import Compose, GaussianNoise, InstrumentBroadening, RadialVelocityShift
from skspec.calibration import ResidualCovarianceRegressor
from skspec.datasets import SpectraStore, load_spectra, make_spectra, save_spectra
from skspec.discovery import all_estimators
from skspec.discriminative import KernelPCARegressor
from skspec.ensemble import AugmentedRegressor
from skspec.forward import TheCannon
from skspec.preprocessing import ContinuumNormalizer

OPTICAL = np.linspace(4000.0, 7000.0, 61)


@pytest.mark.parametrize(
    "air, vacuum",  # Morton 1991 (ApJS 77, 119) and the NIST tables, to 0.01 Angstrom
    [(6562.80, 6564.61), (4861.33, 4862.69), (5889.95, 5891.58), (8542.09, 8544.44)],
)
def test_lines_in_air_and_vacuum(air, vacuum):
    assert_allclose(air_to_vacuum(air), vacuum, atol=0.01)
    assert_allclose(vacuum_to_air(vacuum), air, atol=0.01)


@given(st.floats(2010, 25000))
def test_there_and_back(wavelength):
    assert_allclose(vacuum_to_air(air_to_vacuum(wavelength)), wavelength, rtol=0, atol=1e-9)


def test_far_ultraviolet_is_vacuum():
    assert air_to_vacuum(1215.67) == vacuum_to_air(1215.67) == 1215.67


@pytest.mark.parametrize(
    "unit, factor", [("nm", 0.1), ("micron", 1e-4), ("um", 1e-4), ("m", 1e-10), ("Angstrom", 1)]
)
def test_units_by_name(unit, factor):
    spectra = Spectra(np.ones((1, 61)), wavelength=OPTICAL * factor, wavelength_unit=unit)
    assert_allclose(spectra.wavelength, OPTICAL, rtol=1e-14)


def test_logarithms_by_name():
    found = to_angstrom(np.log10(OPTICAL), "log10(Angstrom)")
    assert_allclose(found, OPTICAL, rtol=1e-13)


@pytest.mark.parametrize(
    "wavelength, advice",
    [
        (OPTICAL / 10, "'nm'"),
        (OPTICAL / 1e4, "'micron'"),
        (np.log10(OPTICAL), "log10"),
        (np.log(OPTICAL), "Angstrom"),
        (np.linspace(15100, 17000, 61) / 1e4, "'micron'"),
        (np.arange(61), "Angstrom"),
    ],
)
def test_bare_short_wavelengths_are_questioned(wavelength, advice):
    with pytest.raises(ValueError, match=f"is that Angstrom.*{advice}"):
        Spectra(np.ones((1, 61)), wavelength=wavelength)


def test_far_ultraviolet_says_so():
    far = np.linspace(1150, 1750, 61)
    spectra = Spectra(np.ones((1, 61)), wavelength=far, wavelength_unit="Angstrom")
    assert_array_equal(spectra.wavelength, far)
    assert_array_equal(spectra.replace(flux=2 * spectra.flux).wavelength, far)
    assert_array_equal(spectra[:, 3:].wavelength, far[3:])


def test_unknown_units():
    with pytest.raises(ValueError, match="km / s|km/s"):
        Spectra(np.ones((1, 61)), wavelength=OPTICAL, wavelength_unit="km/s")
    with pytest.raises(ValueError, match="furlongs"):
        Spectra(np.ones((1, 61)), wavelength=OPTICAL, wavelength_unit="furlongs")


@pytest.mark.parametrize(
    "change, apart",
    [
        (lambda w: w.astype(np.float32), 0),
        (lambda w: w * (1 + 1e-12), 0),
        (lambda w: w + 0.1, 0.002),
        (lambda w: w + 25.0, 0.5),
    ],
)
def test_grids_are_compared_in_pixels(change, apart):
    found = pixel_difference(OPTICAL, np.asarray(change(OPTICAL), dtype=float))
    assert found == (0 if apart < 0.004 else pytest.approx(apart))


def test_grids_of_other_lengths_differ():
    assert pixel_difference(OPTICAL, OPTICAL[:-1]) == np.inf


# -- astropy ---------------------------------------------------------------------------------------


def test_quantities():
    units = pytest.importorskip("astropy.units")
    quantity = OPTICAL * units.AA
    for unit in (units.nm, units.um, units.m):
        spectra = Spectra(np.ones((1, 61)), wavelength=quantity.to(unit))
        assert_allclose(spectra.wavelength, OPTICAL, rtol=1e-14)
    frequency = quantity.to(units.THz, equivalencies=units.spectral())
    assert_allclose(Spectra(np.ones((1, 61)), wavelength=frequency).wavelength, OPTICAL)
    assert_allclose(air_to_vacuum(656.28 * units.nm), 6564.61, atol=0.01)
    with pytest.raises(ValueError, match="none of a wavelength"):
        Spectra(np.ones((1, 61)), wavelength=OPTICAL * units.km / units.s)


def test_flux_and_errors_are_quantities():
    units = pytest.importorskip("astropy.units")
    flux = np.full((2, 5), 3.0) * units.Jy
    spectra = Spectra(flux, flux_err=np.full((2, 5), 30.0) * units.mJy)
    assert spectra.flux_unit == "Jy"
    assert_allclose(spectra.snr, 100)
    ivar = np.full((2, 5), 1e-3) / units.mJy**2
    assert_allclose(Spectra(flux, ivar=ivar).ivar, 1e3)
    assert_allclose(Spectra(flux, flux_err=0.03).snr, 100)  # a bare error has the unit of the flux
    with pytest.raises(ValueError, match="does not fit a flux in 'Jy'"):
        Spectra(flux, flux_err=np.ones((2, 5)) * units.AA)
    with pytest.raises(ValueError, match="the flux has none"):
        Spectra(np.ones((2, 5)), flux_err=np.ones((2, 5)) * units.mJy)
    other = spectra.replace(flux=flux.to(units.mJy), flux_err=30.0)
    assert other.flux_unit == "mJy"
    assert_allclose(other.snr, 100)


def test_masked_quantities_and_uncertainties():
    astropy = pytest.importorskip("astropy")
    from astropy import nddata, units
    from astropy.utils.masked import Masked

    assert astropy
    mask = np.array([[True, False, False]])
    masked = Masked([[1.0, 2.0, 3.0]] * units.Jy, mask=mask)
    spectra = Spectra(masked)
    assert spectra.flux_unit == "Jy"
    assert_array_equal(spectra.good, ~mask)
    for kind, values in [
        (nddata.StdDevUncertainty, 0.5),
        (nddata.VarianceUncertainty, 0.25),
        (nddata.InverseVariance, 4.0),
    ]:
        uncertainty = kind(np.full((1, 3), values))
        assert_allclose(Spectra(np.ones((1, 3)), flux_err=uncertainty).ivar, 4)
        assert_allclose(Spectra(np.ones((1, 3)), ivar=uncertainty).ivar, 4)


# -- what is known of spectra ----------------------------------------------------------------------


@pytest.fixture
def spectra():
    flux = np.linspace(1, 2, 4 * 61).reshape(4, 61)
    return Spectra(
        flux,
        ivar=flux,
        wavelength=OPTICAL,
        medium="air",
        frame="rest",
        resolution=np.linspace(1000, 2000, 61),
        flux_unit="adu",
        meta={"star_id": list("abcd")},
    )


def test_converted_to_another_medium(spectra):
    vacuum = spectra.to_medium("vacuum")
    assert vacuum.medium == "vacuum" and spectra.medium == "air"
    assert_array_equal(vacuum.wavelength, air_to_vacuum(OPTICAL))
    assert_array_equal(air_to_vacuum(spectra).wavelength, vacuum.wavelength)
    assert_allclose(vacuum_to_air(vacuum).wavelength, OPTICAL, rtol=1e-12)
    assert spectra.to_medium("air") is spectra
    with pytest.raises(ValueError, match="no known medium"):
        spectra.replace(medium=None).to_medium("air")
    with pytest.raises(ValueError, match="water"):
        spectra.to_medium("water")


@pytest.mark.parametrize("name, value", [("medium", "water"), ("frame", "lab"), ("resolution", -1)])
def test_what_is_not_known_is_refused(spectra, name, value):
    with pytest.raises(ValueError, match=name):
        spectra.replace(**{name: value})


def test_resolution_follows_rows_and_pixels(spectra):
    assert_array_equal(spectra[:, 5:9].resolution, spectra.resolution[5:9])
    assert_array_equal(spectra[[2, 0]].resolution, spectra.resolution)
    star = spectra.replace(resolution=[1.0, 2.0, 3.0, 4.0])
    assert_array_equal(star[[2, 0]].resolution, [[3], [1]])
    assert_array_equal(star[1, 5:9].resolution, [[2]])
    each = spectra.replace(resolution=np.arange(1.0, 4 * 61 + 1).reshape(4, 61))
    assert_array_equal(each[1:3, 4:6].resolution, each.resolution[1:3, 4:6])
    assert spectra.replace(resolution=11500)[0].resolution == 11500
    with pytest.raises(ValueError, match="resolution has shape"):
        spectra.replace(resolution=[1, 2])


def test_words_for_all_stars_in_meta_count(spectra):
    other = Spectra(spectra.flux, meta={"medium": "vacuum", "resolution": 5000, "snr": np.ones(4)})
    assert (other.medium, other.resolution, list(other.meta)) == ("vacuum", 5000, ["snr"])


def test_joined_spectra_keep_what_they_have_in_common(spectra):
    whole = concatenate([spectra[:1], spectra[1:]])
    assert (whole.medium, whole.frame, whole.flux_unit) == ("air", "rest", "adu")
    assert_array_equal(whole.resolution, spectra.resolution)
    unknown = spectra.replace(medium=None)
    assert concatenate([unknown, spectra]).medium == "air"
    each = concatenate([spectra[:1].replace(resolution=1000), spectra[1:].replace(resolution=2000)])
    assert_array_equal(each.resolution, [[1000], [2000], [2000], [2000]])
    for name, value in [("medium", "vacuum"), ("frame", "barycentric"), ("flux_unit", "Jy")]:
        with pytest.raises(ValueError, match=f"different {name}"):
            concatenate([spectra, spectra.replace(**{name: value})])


def test_joined_on_the_pixels_of_others_in_their_medium(spectra):
    line = Spectra(
        1 - 0.5 * np.exp(-0.5 * ((OPTICAL - 5500) / 100) ** 2), wavelength=OPTICAL, medium="air"
    )
    vacuum = line.to_medium("vacuum")
    grid = vacuum[:, 2:-2].replace(wavelength=np.linspace(4200, 6800, 57))
    one, other = concatenate([line], grid=grid), concatenate([vacuum], grid=grid)
    assert one.medium == "vacuum"
    assert_allclose(one.flux, other.flux, atol=1e-12)


def assert_about(one, other):
    assert (one.medium, one.frame, one.flux_unit) == (other.medium, other.frame, other.flux_unit)
    assert_array_equal(one.resolution, other.resolution)


@pytest.mark.parametrize("resolution", [None, 11500.0, "pixel", "star", "each"])
def test_files_stores_and_pickles_keep_it(spectra, resolution, tmp_path):
    shaped = {"pixel": np.arange(1.0, 62), "star": np.arange(1.0, 5)[:, None]}
    shaped["each"] = shaped["pixel"] * shaped["star"]
    spectra = spectra.replace(resolution=shaped.get(resolution, resolution))
    assert_about(pickle.loads(pickle.dumps(spectra)), spectra)
    path = save_spectra(tmp_path / "stars.npz", spectra)
    assert_about(load_spectra(path)[0], spectra)
    pytest.importorskip("zarr")
    store = SpectraStore.write(tmp_path / "store", spectra[:2]).append(spectra[2:])
    assert_about(store, spectra)
    assert_about(store[1:3], spectra[1:3])
    for name, value in [("medium", "vacuum"), ("frame", None), ("flux_unit", "Jy")]:
        with pytest.raises(ValueError, match="a store has one for all stars"):
            store.append(spectra.replace(**{name: value}))


# -- models and transformers -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def stars():
    spectra, labels = make_spectra(120, n_pixels=120, random_state=0)
    return spectra.replace(frame="rest"), labels[["teff", "feh"]]


TRANSFORMERS = [
    pytest.param(cls, id=name)
    for name, cls in all_estimators("transformer")
    if cls.__module__.startswith(("skspec.preprocessing", "skspec.augmentation"))
    and name not in {"LabelScaler", "Compose", "OneOf"}  # no Spectra; made of others
]


@pytest.mark.parametrize("cls", TRANSFORMERS)
def test_transformers_keep_it(cls, stars):
    spectra, labels = stars
    out = cls().fit_transform(spectra, labels)
    moved = cls is RadialVelocityShift
    assert (out.medium, out.frame) == ("vacuum", None if moved else "rest")
    broadened = cls is InstrumentBroadening
    assert (out.resolution is None) == broadened


@pytest.mark.parametrize(
    "model", [TheCannon(1), KernelPCARegressor(n_components=5), ResidualCovarianceRegressor()]
)
def test_another_medium_is_refused(model, stars):
    spectra, labels = stars
    model.fit(spectra, labels)
    wanted = model.predict(spectra[:3])
    air = spectra[:3].to_medium("air")
    with pytest.raises(
        ValueError, match=r"in vacuum, these are in air: spectra.to_medium\('vacuum'"
    ):
        model.predict(air)
    assert_allclose(model.predict(air.to_medium("vacuum")), wanted, rtol=1e-6)
    assert_allclose(model.predict(spectra[:3].replace(medium=None)), wanted)


def test_in_pipelines_and_searches(stars):
    spectra, labels = stars
    pipeline = make_pipeline(ContinuumNormalizer("chebyshev", degree=1), TheCannon(1))
    search = GridSearchCV(pipeline, {"thecannon__degree": [1]}, cv=2).fit(spectra, labels)
    with pytest.raises(ValueError, match="in vacuum, these are in air"):
        search.predict(spectra[:3].to_medium("air"))


def test_training_on_moved_stars_takes_moving_ones(stars):
    spectra, labels = stars
    moving = spectra[:3].replace(frame="barycentric")
    for augmentation in (
        RadialVelocityShift(20),
        Compose([GaussianNoise(100), RadialVelocityShift()]),
    ):
        for keep in (False, True):
            model = AugmentedRegressor(TheCannon(1), augmentation, keep=keep, random_state=0)
            assert model.fit(spectra, labels).predict(moving).shape == (3, 2)
    still = AugmentedRegressor(TheCannon(1), augmentation=GaussianNoise(100), random_state=0)
    with pytest.raises(ValueError, match="in the rest frame"):
        still.fit(spectra, labels).predict(moving)


def test_moving_stars_are_refused_unless_velocities_are_fitted(stars):
    spectra, labels = stars
    moving = spectra[:3].replace(frame="barycentric")
    with pytest.raises(ValueError, match="in the rest frame, these are in the barycentric frame"):
        TheCannon(1).fit(spectra, labels).predict(moving)
    TheCannon(1, fit_rv=True).fit(spectra, labels).predict(moving)
    barycentric = TheCannon(1).fit(spectra.replace(frame="barycentric"), labels)
    barycentric.predict(moving.replace(frame="heliocentric"))  # 15 m/s
    barycentric.predict(moving.replace(frame=None))


# -- what is no array ------------------------------------------------------------------------------


def test_unequal_spectra_get_a_sentence():
    with pytest.raises(ValueError, match=r"different lengths, 5 to 6 pixels.*concatenate\(.*grid="):
        Spectra([np.ones(5), np.ones(6)])


def test_tables_get_a_sentence():
    table = pytest.importorskip("astropy.table").Table(
        {"wave": [5000.0, 5001.0], "flux": [1.0, 2.0]}
    )
    for form in (table, table.as_array()):
        with pytest.raises(ValueError, match="is a table.*give its columns"):
            Spectra(form)
    columns = Spectra(table["flux"], wavelength=table["wave"])
    assert columns.flux.tolist() == [[1, 2]] and type(columns.flux) is np.ndarray


def test_masked_columns_and_units_of_columns():
    table = pytest.importorskip("astropy.table")
    flux = table.MaskedColumn([1.0, 2.0, 3.0], mask=[False, True, False], unit="Jy")
    wave = table.Column([500.0, 500.1, 500.2], unit="nm")
    spectra = Spectra(flux, wavelength=wave)
    assert_allclose(spectra.wavelength, [5000, 5001, 5002])
    assert spectra.good.tolist() == [[True, False, True]] and spectra.flux_unit == "Jy"
