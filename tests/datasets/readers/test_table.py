"""Tables of anybody, by the names of their columns."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from survey_files import FILES, real_files

from skspec.datasets import read_spectra
from skspec.datasets.readers import SpectrumFileError, read_file

table = pytest.importorskip("astropy.table")

WAVELENGTH = np.array([5000.0, 5001.5, 5003.0, 5004.5, 5006.0])
FLUX = np.array([1.0, 0.9, 0.75, 0.95, 1.05])
SIGMA = np.array([0.01, 0.02, 0.0, 0.02, 0.01])


def rows(*columns, between=","):
    return "".join(between.join(f"{value:.10g}" for value in row) + "\n" for row in zip(*columns))


def read_text(tmp_path, text, name="a.txt"):
    (tmp_path / name).write_text(text)
    return read_file(tmp_path / name)


def check(spectra):
    """The five pixels, the third without an error."""
    assert_allclose(spectra.wavelength, WAVELENGTH, rtol=1e-9)
    assert_allclose(spectra.flux[0], FLUX)
    assert_allclose(spectra.flux_err[0], [0.01, 0.02, np.inf, 0.02, 0.01])


@pytest.mark.parametrize("path", real_files("misc/ascii_5columns.txt"))
def test_real_file_without_names(path):
    with pytest.raises(SpectrumFileError, match="5 columns without names"):
        read_file(FILES / path)


@pytest.mark.parametrize(
    ("head", "between"),
    [
        ("wavelength,flux,flux_err\n", ","),
        ("Wave, Flux, Sigma\n", ", "),
        ("# wave flux err\n", " "),
        ("#wavelength   flux   error\n", "   "),
        ("# a star\n# LAMBDA F E_FLUX\n# end of the head\n", " "),
        ("lambda\tflux\tuncertainty\n", "\t"),
        ("wl;flux;err\n", ";"),
        ("wave flux sigma\n", "  "),
        ("# taken in the night of 3 May\nwavelength,flux,error\n", ","),
        ("wave [Angstrom] flux err\n", " "),
        ("\ufeffwavelength,flux,err\n", ","),
        ("wavelength,flux,err\nAngstrom,Jy,Jy\n", ","),
    ],
)
def test_text_with_names(tmp_path, head, between):
    [spectra] = read_text(tmp_path, head + rows(WAVELENGTH, FLUX, SIGMA, between=between))
    check(spectra)
    assert spectra.meta["format"].tolist() == ["table"]
    assert (spectra.medium, spectra.frame) == (None, None)


def test_exponents_of_fortran(tmp_path):
    body = rows(WAVELENGTH, FLUX, SIGMA, between=" ").replace("\n", "D+00\n")
    check(read_text(tmp_path, "# wave flux err\n" + body)[0])
    check(read_text(tmp_path, "# wave flux err\n" + body.replace("D", "d"))[0])


def test_table_of_pandas_with_its_index(tmp_path):
    body = "".join(f"{k},{w},{f},{e}\n" for k, (w, f, e) in enumerate(zip(WAVELENGTH, FLUX, SIGMA)))
    check(read_text(tmp_path, ",wavelength,flux,err\n" + body)[0])


def test_what_specutils_writes(tmp_path):
    specutils = pytest.importorskip("specutils")
    from astropy import nddata, units

    one = specutils.Spectrum(
        flux=FLUX * units.Jy,
        spectral_axis=WAVELENGTH / 10 * units.nm,
        uncertainty=nddata.StdDevUncertainty(SIGMA),
    )
    one.write(tmp_path / "a.fits", format="tabular-fits")
    [spectra] = read_file(tmp_path / "a.fits")
    check(spectra)
    assert spectra.flux_unit == "Jy"


@pytest.mark.parametrize("end", ["\r\n", "\n\n"])
def test_ends_of_lines(tmp_path, end):
    text = "wavelength,flux,err\n" + rows(WAVELENGTH, FLUX, SIGMA)
    (tmp_path / "a.csv").write_bytes(text.replace("\n", end).encode())
    check(read_file(tmp_path / "a.csv")[0])


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("wavelength [nm]", WAVELENGTH / 10),
        ("wave (nm)", WAVELENGTH / 10),
        ("lambda_um", WAVELENGTH / 1e4),
        ("loglam", np.log10(WAVELENGTH)),
        ("log10(lambda)", np.log10(WAVELENGTH)),
    ],
)
def test_units_in_names(tmp_path, name, values):
    text = f"{name},flux,err\n" + "".join(
        f"{w:.15g},{f},{e}\n" for w, f, e in zip(values, FLUX, SIGMA)
    )
    check(read_text(tmp_path, text)[0])


def test_medium_and_frame_where_they_are_told(tmp_path):
    body = rows(WAVELENGTH, FLUX)
    [spectra] = read_text(
        tmp_path, "# medium: air\n# frame = heliocentric\n# wave flux\n" + body.replace(",", " ")
    )
    assert (spectra.medium, spectra.frame) == ("air", "heliocentric")
    assert read_text(tmp_path, "wave_vac,flux\n" + body)[0].medium == "vacuum"
    assert read_text(tmp_path, "air_wavelength,flux\n" + body)[0].medium == "air"


@pytest.mark.parametrize(
    ("kind", "values"),
    [
        ("flux_err", SIGMA),
        ("ivar", [1e4, 2500, 0, 2500, 1e4]),
        ("variance", np.square(SIGMA)),
    ],
)
@pytest.mark.parametrize("container", ["csv", "ecsv", "fits", "vot", "vot.gz"])
def test_containers_and_errors(tmp_path, container, kind, values):
    made = table.Table({"wavelength": WAVELENGTH / 10, "flux": FLUX, kind: values})
    path = tmp_path / f"a.{container}"
    if container == "csv":
        made.rename_column("wavelength", "wavelength_nm")
        made.write(path, format="ascii.csv")
    else:
        made["wavelength"].unit = "nm"
        made["flux"].unit = "mJy"
        made[kind].unit = {"flux_err": "mJy", "ivar": "mJy-2", "variance": "mJy2"}[kind]
        formats = {"ecsv": "ascii.ecsv", "fits": "fits"}
        if container == "vot.gz":
            made.write(tmp_path / "b.vot", format="votable")
            import gzip

            path.write_bytes(gzip.compress((tmp_path / "b.vot").read_bytes()))
        else:
            made.write(path, format=formats.get(container, "votable"))
    [spectra] = read_file(path)
    check(spectra)
    assert spectra.flux_unit == (None if container == "csv" else "mJy")


def test_errors_in_another_unit(tmp_path):
    made = table.Table({"wave": WAVELENGTH, "flux": FLUX, "err": SIGMA * 1000})
    made["flux"].unit, made["err"].unit = "Jy", "mJy"
    made.write(tmp_path / "a.fits")
    check(read_file(tmp_path / "a.fits")[0])
    made["err"].unit = "s"
    made.write(tmp_path / "b.fits")
    with pytest.raises(SpectrumFileError, match="'err' is in 's', the flux in 'Jy'"):
        read_file(tmp_path / "b.fits")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("mask", [0, 1, 0, 0, 0]),
        ("bad", ["False", "True", "False", "False", "False"]),
        ("quality", [0, 16384, 0, 0, 0]),
        ("good", [1, 0, 1, 1, 1]),
    ],
)
def test_masks(tmp_path, name, values):
    text = f"wave,flux,{name}\n" + "".join(
        f"{w},{f},{m}\n" for w, f, m in zip(WAVELENGTH, FLUX, values)
    )
    [spectra] = read_text(tmp_path, text)
    assert spectra.good.tolist() == [[True, False, True, True, True]]


@pytest.mark.parametrize("missing", ["", "nan", "NaN", "--", "-9999", "null", "INDEF"])
def test_missing_fluxes_are_bad(tmp_path, missing):
    text = "wave,flux\n5000,1\n5001," + missing + "\n5002,0.5\n"
    [spectra] = read_text(tmp_path, text)
    assert spectra.good.tolist() == [[True, False, True]]


def test_several_stars_are_rows(tmp_path):
    ids = [5762406957886626817, 17, 5762406957886626816]
    head = "source_id,wavelength,flux,err,teff,note\n"
    body = "".join(
        f"{star},{w},{f + k},{e},{5000 + k},n{k}\n"
        for k, star in enumerate(ids)
        for w, f, e in zip(WAVELENGTH, FLUX, SIGMA)
    )
    lines = body.splitlines(keepends=True)
    for text in (body, "".join(lines[k::5][j] for k in range(5) for j in range(3))):  # interleaved
        [spectra] = read_text(tmp_path, head + text)
        assert spectra.shape == (3, 5)
        assert spectra.meta["star_id"].tolist() == list(map(str, ids))
        assert spectra.meta["source_id"].tolist() == ids
        assert spectra.meta["teff"].tolist() == [5000, 5001, 5002]
        assert spectra.meta["note"].tolist() == ["n0", "n1", "n2"]
        assert_allclose(spectra.flux, FLUX + np.arange(3)[:, None])


def test_stars_of_several_grids(tmp_path):
    text = "star,wave,flux\n" + "".join(
        f"{star},{w + 0.5 * k},{f}\n"
        for k, star in enumerate(["HD 1", "HD 2"])
        for w, f in zip(WAVELENGTH, FLUX)
    )
    found = read_text(tmp_path, text)
    assert [spectra.meta["star_id"].tolist() for spectra in found] == [["HD 1"], ["HD 2"]]
    # read_spectra brings them to one
    spectra = read_spectra(tmp_path / "a.txt", frame=None, grid=[5001.0, 5002, 5003])
    assert spectra.shape == (2, 3)


@pytest.mark.parametrize("container", ["ecsv", "fits", "vot"])
def test_a_star_in_each_row(tmp_path, container):
    made = table.Table(
        {
            "star_id": ["a", "b"],
            "wavelength": np.array([WAVELENGTH, WAVELENGTH]),
            "flux": np.array([FLUX, FLUX + 1]),
            "ivar": np.array([[1e4, 2500, 0, 2500, 1e4]] * 2),
            "teff": [5000.0, 6000.0],
        }
    )
    path = tmp_path / f"a.{container}"
    made.write(path, format={"ecsv": "ascii.ecsv", "vot": "votable"}.get(container, container))
    [spectra] = read_file(path)
    check(spectra[0])
    assert_allclose(spectra.flux[1], FLUX + 1)
    assert spectra.meta["star_id"].tolist() == ["a", "b"]
    assert spectra.meta["teff"].tolist() == [5000.0, 6000.0]


def test_orders(tmp_path):
    """Named, or found where wavelengths step back."""
    first, second = np.linspace(5000, 5050, 40), np.linspace(5040, 5090, 40)
    grid = np.concatenate([first, second])
    order = np.repeat([52, 51], 40)
    named = read_text(tmp_path, "order,wave,flux\n" + rows(order, grid, np.ones(80)))[0]
    assert_array_equal(named.order, order)
    found = read_text(tmp_path, "wave,flux\n" + rows(grid, np.ones(80)))[0]
    assert_array_equal(found.order, np.repeat([0, 1], 40))


def test_rows_in_any_order(tmp_path):
    """As a database may hand them out."""
    by = [3, 0, 4, 1, 2]
    check(read_text(tmp_path, "wave,flux,err\n" + rows(WAVELENGTH[by], FLUX[by], SIGMA[by]))[0])


def test_bare_columns_that_can_be_nothing_else(tmp_path):
    wavelength = np.arange(4000.0, 4100)
    flux = np.linspace(1, 2, 100).round(6)
    [spectra] = read_text(tmp_path, rows(wavelength, flux, between=" "))
    assert_allclose(spectra.flux[0], flux)
    assert spectra.ivar is None
    [spectra] = read_text(tmp_path, rows(wavelength, flux, np.full(100, 0.5)))
    assert_array_equal(spectra.flux_err, np.full((1, 100), 0.5))


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        ((WAVELENGTH, FLUX, SIGMA, SIGMA), "4 columns without names"),
        ((WAVELENGTH / 10, FLUX), "from 500 to 500.6, which may be anything"),
        ((FLUX, WAVELENGTH), "does not rise"),
        ((WAVELENGTH, FLUX, -SIGMA), "third is no error"),
        (([55000.1, 55001.0, 55400.2, 55400.3, 56001.0], FLUX), "uneven steps"),
    ],
)
def test_bare_columns_that_can_be_something_else(tmp_path, columns, reason):
    with pytest.raises(SpectrumFileError, match=reason + ".*begin with a line such as"):
        read_text(tmp_path, rows(*columns, between=" "))


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("wavelength,brightness\n5000,1\n", r"no column of fluxes.*'brightness'"),
        ("x,flux,err\n5000,1,1\n", r"no column of wavelengths.*\['x', 'flux', 'err'\]"),
        ("wave,flux\n", "table is empty"),
        ("wave,flux\n5000,1\n5001\n", "row 2 has 1 columns, not 2"),
        ("wave,flux\n5000,1\n5001,0.9a\n", "'flux' holds '0.9a', which is no number"),
        ("wave,flux\n5000,1\n,1\n5002,1\n", "'wave' are missing in row 2"),
        ("wave,flux\n846.0,1\n846.1,1\n", r"846 to 846.1 without a unit: name the column 'wave \["),
        ("wave [parsec/h],flux\n5000,1\n5001,1\n", "no unit of wavelengths"),
        ("wave,flux,flux\n5000,1,1\n", "same name"),
        ("wave,flux\n5000,1\n5001,1\n4000,2\n5000,1\n", "nor in orders"),
        ("A letter, about nothing\nthat has numbers\n", "none of the known formats"),
        ("The spectrum of the Sun\nwas taken at noon\n", "none of the known formats"),
    ],
)
def test_refused_in_a_sentence(tmp_path, text, reason):
    with pytest.raises(SpectrumFileError, match=reason):
        read_text(tmp_path, text)


def test_fits_table_without_fluxes(tmp_path):
    table.Table({"wave": WAVELENGTH, "depth": FLUX}).write(tmp_path / "a.fits")
    with pytest.raises(SpectrumFileError, match="no column of fluxes"):
        read_file(tmp_path / "a.fits")


def test_a_number_of_each_row_is_no_star(tmp_path):
    text = "id,wavelength,flux,sigma\n" + rows(np.arange(5), WAVELENGTH, FLUX, SIGMA)
    [spectra] = read_text(tmp_path, text)
    check(spectra)
    assert spectra.meta["star_id"].tolist() == [""]


def test_zeros_of_identifiers(tmp_path):
    text = "star,wavelength,flux,sigma\n007," + rows(WAVELENGTH, FLUX, SIGMA).strip().replace(
        "\n", "\n007,"
    )
    [spectra] = read_text(tmp_path, text)
    check(spectra)
    assert spectra.meta["star_id"].tolist() == ["007"]


def test_whole_numbers_without_names(tmp_path):
    """The second line of a table of integers could be the counts of Libre-ESpRIT."""
    [spectra] = read_text(tmp_path, rows(5000 + np.arange(30), np.ones(30), between=" "))
    assert spectra.meta["format"].tolist() == ["table"]
    assert_array_equal(spectra.wavelength, 5000 + np.arange(30))
