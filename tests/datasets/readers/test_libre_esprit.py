import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, check_golden, golden, line_velocity, real_files
from survey_layouts.libre_esprit import write_cfht, write_libre_esprit

from skspec.datasets.readers import SpectrumFileError, read_file

# three orders that overlap, nm
WAVELENGTH = np.concatenate(
    [500 + 0.02 * np.arange(k, k + n) for k, n in [(0, 50), (45, 55), (90, 60)]]
)
N = len(WAVELENGTH)
FLUX = np.linspace(1, 2, N).round(3)


@pytest.mark.parametrize("path", real_files("espadons_text/observed.dat"))
def test_real(path):
    [spectra] = read_file(FILES / path)
    check_golden(spectra, golden()[str(path)]["I"])
    assert len(np.unique(spectra.order)) == 9  # eight steps back
    # magnesium b2, deep in one order of a star whose velocity the file does not tell
    near = np.flatnonzero(np.abs(spectra.wavelength - 5172.684) < 0.05)[0]
    order = spectra[:, spectra.order == spectra.order[near]]
    at = line_velocity(order.wavelength, order.flux[0], order.good[0], 5172.684, core=15)
    assert abs(at) < 150


@pytest.mark.parametrize(
    ("name", "reason"),
    [("SampleLSD.s", "profile in velocities"), ("2378196p.out", "header written out as text")],
)
def test_real_files_of_no_spectrum(name, reason):
    path = FILES / "espadons_text" / name
    if not path.exists():
        pytest.skip("no espadons_text in SKSPEC_FILES")
    with pytest.raises(SpectrumFileError, match=reason):
        read_file(path)


@pytest.mark.parametrize("n_columns", [2, 3, 6])
@pytest.mark.parametrize("n_pixels", [N, N + 1])
def test_columns_and_counts(tmp_path, n_columns, n_pixels):
    others = [np.full(N, 0.3), np.full(N, 0.4), np.full(N, 0.5)][: max(0, n_columns - 3)]
    sigma = [np.full(N, 0.0125)] if n_columns > 2 else []
    path = tmp_path / "a.s"
    write_libre_esprit(path, WAVELENGTH, FLUX, *others, *sigma, n_pixels=n_pixels)
    [spectra] = read_file(path)
    assert_allclose(spectra.wavelength, 10 * WAVELENGTH, rtol=1e-12)
    assert_allclose(spectra.flux[0], FLUX)
    assert np.bincount(spectra.order).tolist() == [50, 55, 60]
    assert (spectra.medium, spectra.frame) == ("air", "heliocentric")
    assert spectra.meta["star_id"].tolist() == ["HD 1"]
    if sigma:
        assert_allclose(spectra.flux_err, 0.0125)
    else:
        assert not spectra.has_errors


def test_one_order_has_no_number(tmp_path):
    rising = np.arange(500, 501, 0.02)
    write_libre_esprit(tmp_path / "a.s", rising, np.ones_like(rising))
    assert read_file(tmp_path / "a.s")[0].order is None


def test_sigma_of_zero_is_bad(tmp_path):
    sigma = np.full(N, 0.01)
    sigma[3:5] = 0
    write_libre_esprit(tmp_path / "a.s", WAVELENGTH, FLUX, sigma)
    assert np.flatnonzero(~read_file(tmp_path / "a.s")[0].good[0]).tolist() == [3, 4]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda text: text[: len(text) // 2], "truncated|cut off"),
        (lambda text: text[:-6], "cut off within the last number"),
        (lambda text: text[:-14], "cut off or damaged"),
        (lambda text: text.replace("500.0400", "   nan  "), "wavelengths are no numbers"),
        (lambda text: text.replace("500.0400", "500.x400"), "cut off or damaged"),
    ],
)
def test_damaged(tmp_path, change, reason):
    path = write_libre_esprit(tmp_path / "a.s", WAVELENGTH, FLUX, np.full(N, 0.01))
    path.write_text(change(path.read_text()))
    with pytest.raises(SpectrumFileError, match=reason):
        read_file(path)


def test_profile_is_no_spectrum(tmp_path):
    velocity = np.linspace(-200, 200, 101)
    write_libre_esprit(tmp_path / "lsd.s", velocity, np.ones(101), np.full(101, 0.01))
    with pytest.raises(SpectrumFileError, match="from -200 to 200: it is a profile in velocities"):
        read_file(tmp_path / "lsd.s")


def test_disorder_is_no_orders(tmp_path):
    shuffled = np.random.default_rng(0).permutation(WAVELENGTH)
    write_libre_esprit(tmp_path / "a.s", shuffled, FLUX)
    with pytest.raises(SpectrumFileError, match="nor in orders"):
        read_file(tmp_path / "a.s")
    assert_array_equal(
        read_file(write_libre_esprit(tmp_path / "b.s", WAVELENGTH, FLUX))[0].flux, [FLUX]
    )


@pytest.mark.parametrize("polarised", [True, False])
def test_fits_of_the_cfht(tmp_path, polarised):
    """The first of its four spectra."""
    path = write_cfht(
        tmp_path / "1p.fits", WAVELENGTH, FLUX, np.full(N, 0.0125), polarised=polarised
    )
    [spectra] = read_file(path)
    assert_allclose(spectra.wavelength, 10 * WAVELENGTH, rtol=1e-7)
    assert_allclose(spectra.flux[0], FLUX, rtol=1e-6)
    assert_allclose(spectra.flux_err, 0.0125, rtol=1e-6)
    assert len(np.unique(spectra.order)) == 3
    assert spectra.meta["star_id"].tolist() == ["HD46328"]
    assert (spectra.medium, spectra.frame) == ("air", "heliocentric")
