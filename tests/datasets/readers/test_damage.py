"""Damaged files are refused with a reason, or read without garbage: never anything else."""

import gzip
import importlib
import inspect
import pkgutil
import resource
import time
import tracemalloc
import warnings

import numpy as np
import pytest
import survey_layouts
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal
from survey_files import FILES

from skspec import Spectra
from skspec.datasets.readers import SpectrumFileError, SpectrumFileWarning, read_file

fits = pytest.importorskip("astropy.io.fits")
from survey_layouts.lamost import write_lrs_image, write_lrs_table, write_mrs  # noqa: E402
from survey_layouts.mutations import MUTATIONS  # noqa: E402


def layouts():
    """Functions of survey_layouts that write a file when they are given nothing but its path."""
    found = {}
    for module in pkgutil.iter_modules(survey_layouts.__path__):
        module = importlib.import_module(f"survey_layouts.{module.name}")
        for name, function in inspect.getmembers(module, inspect.isfunction):
            if name.startswith("write_") and function.__module__ == module.__name__:
                needed = [
                    p.name
                    for p in inspect.signature(function).parameters.values()
                    if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)
                ]
                if len(needed) == 1:
                    found[f"{module.__name__.rpartition('.')[2]}.{name}"] = function
    return found


def small_real_files():
    """One of each folder, not over 300 kB."""
    chosen = {}
    for path in sorted(FILES.glob("*/*")):
        if path.is_file() and path.stat().st_size < 300_000:
            chosen.setdefault(path.parent.name, path)
    return list(chosen.values())


def check(path):
    """What must be so whatever the file: an error that tells, or spectra that make sense."""
    start = time.perf_counter()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.simplefilter("ignore", SpectrumFileWarning)
            found = read_file(path, exposures=True)
    except SpectrumFileError as error:
        assert str(error).startswith(str(path))
        return None
    finally:
        assert time.perf_counter() - start < 5
    assert found
    for spectra in found:
        assert isinstance(spectra, Spectra)
        assert len(spectra)
        wavelength, good = spectra.wavelength, spectra.good
        assert np.all(np.isfinite(wavelength))
        assert wavelength.min() >= 100
        assert wavelength.max() <= 1e7
        orders = np.zeros(len(wavelength)) if spectra.order is None else spectra.order
        for order in np.unique(orders):
            step = np.diff(wavelength[orders == order])
            assert np.all(step > 0) or np.all(step < 0)
        assert np.all(np.isfinite(spectra.flux))
        assert np.all(np.abs(spectra.flux[good]) < 1e30)
        if spectra.ivar is not None:
            assert np.all(spectra.ivar >= 0)
        for name in ("ra", "dec", "rv", "berv"):
            values = spectra.meta.get(name, np.zeros(1))
            assert not np.any(np.isinf(values))
    return found


def mutate(path, data, rng, times=1):
    for _ in range(times):
        if data:
            data = MUTATIONS[rng.integers(len(MUTATIONS))](data, rng)
    path.write_bytes(data)


@pytest.fixture(scope="module")
def originals(tmp_path_factory):
    """Bytes of a file of every layout."""
    folder = tmp_path_factory.mktemp("layouts")
    out = {}
    for name, write in layouts().items():
        path = folder / f"{name}.fits"
        write(path)
        if path.is_file():
            out[name] = path.read_bytes()
    return out


def test_whole_files_are_read(originals, tmp_path):
    assert {"lamost.write_lrs_table", "lamost.write_lrs_image", "lamost.write_mrs"} <= set(
        originals
    )
    for data in originals.values():
        path = tmp_path / "whole"
        path.write_bytes(data)
        check(path)


@pytest.mark.parametrize("seed", range(20))
def test_mutations(originals, tmp_path, seed):
    rng = np.random.default_rng(seed)
    names = sorted(originals)
    for k in range(15):
        path = tmp_path / "damaged.fits"
        mutate(path, originals[names[(15 * seed + k) % len(names)]], rng, rng.integers(1, 3))
        check(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(100, 150))
def test_ten_thousand_mutations(originals, tmp_path, seed):
    rng = np.random.default_rng(seed)
    data = [*originals.values(), *(path.read_bytes() for path in small_real_files())]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for _ in range(200):
        path = tmp_path / "damaged.fits"
        mutate(path, data[rng.integers(len(data))], rng, rng.integers(1, 4))
        try:
            check(path)
        except BaseException:
            print(f"seed {seed}: kept in {path}")
            raise
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**19  # kB


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_bytes_in_the_place_of_any(originals, tmp_path_factory, data):
    original = originals[data.draw(st.sampled_from(sorted(originals)))]
    start = data.draw(st.integers(0, len(original)))
    length = data.draw(st.integers(0, 400))
    piece = data.draw(st.binary(max_size=400))
    path = tmp_path_factory.mktemp("any") / "file"
    path.write_bytes(original[:start] + piece + original[start + length :])
    check(path)


# -- one kind at a time ----------------------------------------------------------------------------


@pytest.fixture
def table(tmp_path):
    return write_lrs_table(tmp_path / "table.fits", n_pixels=600)


@pytest.fixture
def image(tmp_path):
    return write_lrs_image(tmp_path / "image.fits", n_pixels=600)


def edit(path, old, new):
    """Bytes in the place of others, of which there are one."""
    data = path.read_bytes()
    assert data.count(old) == 1
    assert len(old) == len(new)
    path.write_bytes(data.replace(old, new))
    return path


def refused(path, match):
    with pytest.raises(SpectrumFileError, match=match) as caught:
        read_file(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize("kept", [0, 1, 79, 2880, 5000, -2880, -1])
def test_truncated(image, kept):
    image.write_bytes(image.read_bytes()[:kept])
    refused(image, "it is empty|no known|known formats|no END|truncated")


def test_padding_left_out(image):
    """As some write it: the last bytes are those of the data."""
    expected = read_file(image)[0]
    data = image.read_bytes()
    image.write_bytes(data[: 2880 + 5 * 600 * 4])
    assert len(image.read_bytes()) % 2880
    assert_array_equal(read_file(image)[0].flux, expected.flux)


@pytest.mark.parametrize("rest", [b"\r\n", b"\0" * 100, b"lost records".ljust(2880)])
def test_bytes_of_no_hdu(image, rest):
    image.write_bytes(image.read_bytes() + rest)
    refused(image, "bytes follow the last HDU")


@pytest.mark.parametrize(
    "line", [" " * 300_000 + "x", "(" * 300_000, "[ " * 100_000, "a " * 100_000]
)
def test_line_of_any_length(tmp_path, line):
    path = tmp_path / "long.txt"
    path.write_text(f"{line},flux\n1,2\n")
    assert check(path) is None


def test_compressed_file_cut_in_the_middle(tmp_path, table):
    packed = gzip.compress(table.read_bytes())
    for kept in (len(packed) // 2, len(packed) - 1, 15):
        path = tmp_path / "cut.fits.gz"
        path.write_bytes(packed[:kept])
        refused(path, "its compressed data are damaged")


class TestSize:
    """Sizes are checked before memory is taken."""

    def peak(self, path, match):
        tracemalloc.start()
        refused(path, match)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 150e6

    @pytest.mark.parametrize(
        ("card", "value"),
        [
            ("NAXIS1", "1000000000"),
            ("NAXIS1", "9" * 20),
            ("NAXIS", "1000000000"),
            ("NAXIS", "-1"),
            ("NAXIS2", "-5"),
            ("BITPIX", "-6400000000"),
        ],
    )
    def test_image(self, image, card, value):
        start = image.read_bytes().index(f"{card:8}= ".encode())
        data = bytearray(image.read_bytes())
        data[start + 10 : start + 30] = value.rjust(20).encode()
        image.write_bytes(data)
        self.peak(image, "truncated|impossible NAXIS|negative length")

    @pytest.mark.parametrize(("card", "value"), [("PCOUNT", "1000000000"), ("GCOUNT", "-1")])
    def test_table(self, table, card, value):
        data = bytearray(table.read_bytes())
        start = data.index(f"{card:8}= ".encode())
        data[start + 10 : start + 30] = value.rjust(20).encode()
        table.write_bytes(data)
        self.peak(table, "truncated|impossible NAXIS, PCOUNT or GCOUNT")

    def test_table_of_columns_that_do_not_fill_its_rows(self, table):
        edit(table, b"TFORM1  = '600E    '", b"TFORM1  = '599E    '")
        refused(table, "columns of HDU 'COADD' have 14396 bytes a row, and its NAXIS1 is 14400")

    def test_column_of_a_thousand_million(self, table):
        edit(table, b"TFORM6  = '600E    '", b"TFORM6  = '1000000000E'"[:20])
        self.peak(table, "damaged|columns of HDU")

    def test_compressed_bomb(self, tmp_path):
        path = tmp_path / "bomb.fits.gz"
        with gzip.open(path, "wb", compresslevel=1) as file:
            for _ in range(200):
                file.write(b"SIMPLE  =" + bytes(2**20))
        self.peak(path, "too large for a spectrum")

    def test_compressed_image_of_a_thousand_million(self, tmp_path):
        path = tmp_path / "tiles.fits"
        fits.HDUList(
            [fits.PrimaryHDU(), fits.CompImageHDU(np.zeros((64, 64), np.float32))]
        ).writeto(path)
        data = bytearray(path.read_bytes())
        start = data.index(b"ZNAXIS1 = ")
        data[start + 10 : start + 30] = b"1000000000".rjust(20)
        path.write_bytes(data)
        self.peak(path, "too large for a spectrum|damaged")

    def test_cells_of_a_thousand_million_numbers(self, tmp_path, table):
        """Descriptors of vectors of any length that point beyond the file."""
        with fits.open(table) as hdus:
            header = hdus[0].header
            rows = [np.ones(3, np.float32)]
            columns = [
                fits.Column(name, "PE()", array=np.array(rows + rows, dtype=object)[:1])
                for name in ("FLUX", "IVAR", "WAVELENGTH", "ANDMASK")
            ]
            hdu = fits.BinTableHDU.from_columns(columns, name="COADD")
            fits.HDUList([fits.PrimaryHDU(header=header), hdu]).writeto(tmp_path / "p.fits")
        path = tmp_path / "p.fits"
        data = bytearray(path.read_bytes())
        start = data.index((3).to_bytes(4, "big") + (0).to_bytes(4, "big"))
        data[start : start + 4] = (10**9).to_bytes(4, "big")
        path.write_bytes(data)
        self.peak(path, "damaged|neither|numbers")


class TestSums:
    """DATASUM and CHECKSUM, which programs often leave as they were."""

    @pytest.fixture
    def summed(self, table):
        with fits.open(table) as hdus:
            hdus.writeto(table, overwrite=True, checksum=True)
        return table

    def test_right(self, summed):
        assert len(read_file(summed)) == 1

    def test_bit_of_the_data_flipped(self, summed):
        data = bytearray(summed.read_bytes())
        data[-4000] ^= 4
        summed.write_bytes(data)
        refused(summed, "not the sum of its DATASUM card")

    def test_header_changed_since(self, summed):
        edit(summed, b"SUBCLASS= 'F2      '", b"SUBCLASS= 'F5      '")
        assert read_file(summed)[0].meta["subclass"] == ["F5"]

    def test_sums_of_another_file(self, summed, tmp_path):
        """As where a header was copied: neither sum is right."""
        data = bytearray(summed.read_bytes())
        data[-4000] ^= 4
        start = data.index(b"EXTNAME = ")
        data[start + 40 : start + 50] = b"copied".ljust(10)
        summed.write_bytes(data)
        assert len(read_file(summed)) == 1


class TestGarbage:
    """What no checksum tells of."""

    def spoil(self, path, offset, value, dtype=">f4"):
        data = bytearray(path.read_bytes())
        piece = np.array(value, dtype=dtype).tobytes()
        data[2880 + offset : 2880 + offset + len(piece)] = piece
        path.write_bytes(data)

    @pytest.mark.parametrize("value", [1e32, -3e38, np.nan, np.inf, 1e9, -1e9])
    def test_flux_that_no_star_has(self, image, value):
        self.spoil(image, 4 * 100, value)
        [spectra] = read_file(image)
        assert_array_equal(np.flatnonzero(~spectra.good[0]), [100])

    def test_lines_of_a_nebula_stay(self, image):
        self.spoil(image, 4 * 100, 1e6)  # a thousand times the continuum
        assert read_file(image)[0].good.all()

    @pytest.mark.parametrize("value", [1e30, 1e12, np.nan, -1.0])
    def test_errors_that_no_detector_has(self, image, value):
        self.spoil(image, 4 * (600 + 100), value)
        assert_array_equal(np.flatnonzero(~read_file(image)[0].good[0]), [100])

    @pytest.mark.parametrize("value", [np.nan, 4000.0, 1e30])
    def test_wavelengths_that_are_not_those_of_the_header(self, image, value):
        self.spoil(image, 4 * (1200 + 100), value)
        refused(image, "1 of its wavelengths are not those of its header")

    def test_header_that_says_two_things(self, image):
        edit(image, b"COEFF0  =               3.5682", b"COEFF0  =               3.5692")
        refused(image, "gives two wavelengths: CRVAL1 is 3.5682, COEFF0 is 3.5692")

    def test_velocity_beyond_that_of_light(self, tmp_path):
        path = write_lrs_table(tmp_path / "a.fits", n_pixels=600, Z=7.00006785, RA=1e20, DEC=91.0)
        meta = read_file(path)[0].meta
        assert np.isnan([meta["rv"], meta["ra"], meta["dec"]]).all()

    @pytest.mark.parametrize("kind", ["nan", "unsorted", "zero", "short"])
    def test_wavelengths_of_a_table(self, tmp_path, kind):
        path = write_mrs(tmp_path / "m.fits", n_pixels=300)
        with fits.open(path, mode="update") as hdus:
            values = hdus["COADD_B"].data["LOGLAM"]
            if kind == "nan":
                values[7] = np.nan
            elif kind == "unsorted":
                values[[7, 200]] = values[[200, 7]]
            elif kind == "zero":
                values[:] = 0
            else:
                values[:] /= 3
        refused(path, "wavelength")

    def test_empty_table(self, tmp_path):
        path = write_mrs(tmp_path / "m.fits", n_pixels=300)
        with fits.open(path) as hdus:
            hdus["COADD_B"].data = hdus["COADD_B"].data[:0]
            hdus.writeto(path, overwrite=True)
        refused(path, "the table of HDU 'COADD_B' is empty")

    def test_missing_column(self, table):
        edit(table, b"TTYPE1  = 'FLUX    '", b"TTYPE1  = 'FLUKS   '")
        refused(table, "not laid out as its format says.*FLUX")

    def test_no_hdu_of_that_kind(self, table):
        edit(table, b"EXTNAME = 'COADD   '", b"EXTNAME = 'NOTHING '")
        edit(table, b"TTYPE3  = 'WAVELENGTH'", b"TTYPE3  = 'NOTHING   '")
        refused(table, "none of the known layouts|no column of wavelengths")


@pytest.mark.parametrize("value", ["NaN", "Infinity", "nonsense = 50"])
def test_cards_that_the_standard_does_not_know(image, value):
    """Astropy warns of them, or refuses them; they are missing, and nobody is told."""
    edit(image, b"SNRG    =                 50.0", b"SNRG    = " + value.rjust(20).encode())
    with warnings.catch_warnings(record=True) as record:
        warnings.simplefilter("always")
        [spectra] = read_file(image)
    assert not record
    assert np.isnan(spectra.meta["snr_g"][0])
