"""Libraries to train on, from a small package of the same layout, installed or downloaded."""

import functools
import gc
import hashlib
import importlib.util
import logging
import os
import sys
import threading
import warnings
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from skspec.datasets import _mangadap, fetch_miles, fetch_stelib

fits = pytest.importorskip("astropy.io.fits")
pytest.importorskip("pooch")

DATA = Path(os.environ.get("SKSPEC_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
#: the columns of the true table
MILES_ROWS = """\
Name                  MILES   CaT   SpT            Teff   log g   [Fe/H]  Refs   Libraries
                      s????   
 - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - - --
G156-031               0838   705   M7e             2748   5.09      --    33    L            
HD000245               0008         G2V             5348   4.50    -1.16   SKC           E   
HD044691A              022.         A3m             7950   3.95     0.35   333                
HD098468               0407         K0                --     --      --     --               
NGC 7789 342(502) Cl   0974                        10023   2.25    -0.13   1                 
M71 X             Cl   0970   105   HB              5170   2.41    -0.84   2     L           
"""  # noqa: W291
MILES_NUMBERS = [8, 221, 407, 838, 974]  # 970 has no file
STELIB_STARS = {
    "HD005820": ("-", "-", "-", "M2III"),
    "HD006268": (4712, 1.13, -2.41, "G0"),
    "HD053929lp": (14011, 3.63, 0.29, "B9.5III"),
    "HD053929ss": (14011, 3.63, 0.29, "B9.5III"),
    "HD093250": (51000, 3.9, "-", "O6/O7"),
}


def write_image(path, flux, start, step, **cards):
    header = fits.Header({"CRPIX1": 1, "CRVAL1": start, "CDELT1": step, **cards})
    fits.PrimaryHDU(flux, header).writeto(path)


def miles_flux(number):
    return number + np.arange(20.0)


def slope(wavelength):
    return 1 + wavelength / 1000


def fill(folder):
    """The two folders of the package, with few stars of few pixels."""
    miles, stelib = folder / "miles", folder / "stelib"
    miles.mkdir(parents=True)
    stelib.mkdir()
    (miles / "paramsMILES_v9.1.txt").write_text(MILES_ROWS)
    for number in MILES_NUMBERS:
        path = miles / f"MILES_res2.50_star_m{number:04d}V.fits"
        write_image(path, miles_flux(number), 3540.5, 0.9, FWHM=2.5)
    for shift, (name, (*labels, kind)) in enumerate(STELIB_STARS.items()):
        start, step = 3199.25 + 0.25 * shift, 0.9999
        flux = slope(start + step * np.arange(6700)).astype(np.float32)
        flux[6000:] = 0  # not observed
        cards = dict(zip(("TEFF", "LOG_G", "FE_H"), labels)) | {"SPECTYPE": kind}
        write_image(stelib / f"STELIB_v3.2_{name}.fits", flux, start, step, **cards)


@pytest.fixture
def registry(tmp_path, monkeypatch):
    """The package's files, in ``tmp_path / "files"``, with their true hashes."""
    fill(tmp_path / "files")
    folder = tmp_path / "registry"
    folder.mkdir()
    for library in ("miles", "stelib"):
        paths = sorted((tmp_path / "files" / library).iterdir())
        lines = [f"{p.name} {hashlib.sha256(p.read_bytes()).hexdigest()}\n" for p in paths]
        (folder / f"{library}.txt").write_text("".join(lines))
    monkeypatch.setattr(_mangadap, "REGISTRY", folder)


@pytest.fixture
def installed(tmp_path, registry, monkeypatch):
    """A package of the true layout, which cannot be imported; its folder of libraries."""
    package = tmp_path / "site-packages" / "mangadap"
    fill(package / "data" / "spectral_templates")
    (package / "__init__.py").write_text("raise RuntimeError('it was imported')\n")
    monkeypatch.syspath_prepend(package.parent)
    monkeypatch.delitem(sys.modules, "mangadap", raising=False)
    monkeypatch.setattr(_mangadap, "URL", "http://127.0.0.1:9/nowhere")
    return package / "data" / "spectral_templates"


@pytest.fixture
def server(tmp_path, registry, monkeypatch):
    """Serves the files; the names that were asked for."""
    asked = []

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, *args):
            asked.append(self.path.rpartition("/")[2])

        def log_error(self, *args):
            pass

    handler = functools.partial(Handler, directory=str(tmp_path / "files"))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as http:
        thread = threading.Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        monkeypatch.setattr(_mangadap, "URL", f"http://127.0.0.1:{http.server_port}")
        monkeypatch.setattr(_mangadap, "_installed_roots", lambda: [])
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield asked
        http.shutdown()
        thread.join()
        with warnings.catch_warnings():  # pooch leaves its connections to the garbage collector
            warnings.simplefilter("ignore", ResourceWarning)
            gc.collect()


def test_miles_of_the_installed_package(installed):
    spectra, labels = fetch_miles(labelled_only=False)
    np.testing.assert_array_equal(spectra.flux, [miles_flux(k) for k in MILES_NUMBERS])
    np.testing.assert_allclose(spectra.wavelength, 3540.5 + 0.9 * np.arange(20), rtol=1e-12)
    assert spectra.ivar is None
    assert (spectra.medium, spectra.frame) == ("air", "rest")
    np.testing.assert_allclose(spectra.resolution, spectra.wavelength / 2.5, rtol=1e-12)
    assert spectra.meta["star_id"].tolist() == ["m0008", "m0221", "m0407", "m0838", "m0974"]
    assert spectra.meta["miles_number"].tolist() == MILES_NUMBERS
    assert spectra.meta["star_name"].tolist() == [
        *("HD000245", "HD044691A", "HD098468", "G156-031", "NGC 7789 342(502)")
    ]
    assert spectra.meta["spectral_type"].tolist() == ["G2V", "A3m", "K0", "M7e", ""]
    assert list(labels.columns) == ["teff", "logg", "feh"]
    nan = np.nan
    np.testing.assert_array_equal(
        labels,
        [[5348, 4.5, -1.16], [7950, 3.95, 0.35], [nan, nan, nan], [2748, 5.09, nan]]
        + [[10023, 2.25, -0.13]],
    )
    assert "mangadap" not in sys.modules


def test_miles_with_all_labels(installed):
    spectra, labels = fetch_miles()
    assert spectra.meta["miles_number"].tolist() == [8, 221, 974]
    assert labels["teff"].tolist() == [5348, 7950, 10023]
    assert labels.index.tolist() == [0, 1, 2]
    np.testing.assert_array_equal(spectra.flux[:, 0], [8, 221, 974])


def test_stelib_of_the_installed_package(installed):
    spectra, labels = fetch_stelib(labelled_only=False)
    assert spectra.shape == (5, 6651)
    assert spectra.wavelength[[0, -1]].tolist() == [3200, 9850]
    assert (spectra.medium, spectra.frame) == ("air", "rest")
    np.testing.assert_allclose(spectra.resolution, spectra.wavelength / 3, rtol=1e-12)
    np.testing.assert_array_equal(labels["teff"], [np.nan, 4712, 14011, 14011, 51000])
    np.testing.assert_array_equal(labels["feh"], [np.nan, -2.41, 0.29, 0.29, np.nan])
    # a straight line stays one between each star's first pixel and its last that is not zero
    for k in range(5):
        start = 3199.25 + 0.25 * k
        inside = (spectra.wavelength >= start) & (spectra.wavelength <= start + 0.9999 * 5999)
        np.testing.assert_array_equal(spectra.good[k], inside)
        np.testing.assert_allclose(
            spectra.flux[k, inside], slope(spectra.wavelength[inside]), rtol=1e-6
        )
    assert spectra.meta["star_id"].tolist() == [
        *("HD005820", "HD006268", "HD053929", "HD053929", "HD093250")
    ]
    assert spectra.meta["spectral_type"].tolist() == ["M2III", "G0", "B9.5III", "B9.5III", "O6/O7"]
    spectra, labels = fetch_stelib()
    assert spectra.meta["star_name"].tolist() == ["HD006268", "HD053929lp", "HD053929ss"]
    assert labels["logg"].tolist() == [1.13, 3.63, 3.63]


def test_download_once(server, tmp_path):
    spectra, labels = fetch_miles(data_home=tmp_path / "home")
    assert spectra.meta["miles_number"].tolist() == [8, 221, 974]
    assert len(server) == 6
    again, _ = fetch_miles(data_home=tmp_path / "home", download_if_missing=False)
    np.testing.assert_array_equal(again.flux, spectra.flux)
    assert len(server) == 6  # nothing more was asked for
    assert fetch_stelib(data_home=tmp_path / "home")[0].shape == (3, 6651)
    assert len(server) == 11


def test_download_is_one_line_of_log(server, tmp_path):
    import pooch

    lines = []
    handler = logging.Handler()
    handler.emit = lambda record: lines.append(record.getMessage())
    logger = pooch.get_logger()
    logger.addHandler(handler)
    try:
        fetch_miles(data_home=tmp_path / "home")
    finally:
        logger.removeHandler(handler)
    assert len(lines) == 1 and lines[0].startswith("Downloading 6 files from http://127.0.0.1")
    assert not logger.filters


def test_a_download_that_stopped_goes_on(server, tmp_path):
    last = tmp_path / "files" / "miles" / "paramsMILES_v9.1.txt"
    text = last.read_text()
    last.unlink()
    with pytest.raises(OSError, match=r"\d of 6 missing files of miles .*404.*Call again"):
        fetch_miles(data_home=tmp_path / "home", n_retries=0)
    here = sorted((tmp_path / "home" / "mangadap" / "miles").glob("*.fits"))
    last.write_text(text)
    server.clear()
    assert fetch_miles(data_home=tmp_path / "home", n_retries=0)[0].shape == (3, 20)
    assert not {path.name for path in here} & set(server)
    assert len(server) == 6 - len(here)


def test_a_wrong_file_is_downloaded_again_or_refused(server, tmp_path):
    name = "MILES_res2.50_star_m0221V.fits"
    fetch_miles(data_home=tmp_path / "home")
    path = tmp_path / "home" / "mangadap" / "miles" / name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(OSError, match="1 of 6 files of miles are missing"):
        fetch_miles(data_home=tmp_path / "home", download_if_missing=False)
    server.clear()
    fetch_miles(data_home=tmp_path / "home")
    assert server == [name]
    path.unlink()
    (tmp_path / "files" / "miles" / name).write_bytes(b"an error page")
    with pytest.raises(OSError, match="0 of 1 missing files of miles .*does not match"):
        fetch_miles(data_home=tmp_path / "home", n_retries=0)
    assert not path.exists()


def test_off_line_it_says_what_to_put_where(server, tmp_path, monkeypatch):
    monkeypatch.setattr(_mangadap, "URL", "http://127.0.0.1:9")
    home = tmp_path / "home"
    expected = (
        r"0 of 6 .*pip install --no-deps sdss-mangadap, or put the files of its folder "
        rf"mangadap/data/spectral_templates/miles .* into {home}/mangadap/miles\."
    )
    with pytest.raises(OSError, match=expected):
        fetch_miles(data_home=home, n_retries=0)
    # and then it works
    folder = home / "mangadap" / "miles"
    for path in (tmp_path / "files" / "miles").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    assert fetch_miles(data_home=home)[0].shape == (3, 20)


def test_an_installed_package_without_the_files_is_passed_over(installed, tmp_path):
    (installed / "miles" / "paramsMILES_v9.1.txt").unlink()
    with pytest.raises(OSError, match="6 of 6 files of miles are missing"):
        fetch_miles(data_home=tmp_path / "home", download_if_missing=False)


@pytest.mark.parametrize("package", ["astropy", "pooch"])
def test_absent_packages_are_named(server, tmp_path, monkeypatch, package):
    for name in [name for name in sys.modules if name.split(".")[0] == package]:
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ImportError, match=rf'needs? {package}: .*pip install "skspec\[fits\]"'):
        fetch_miles(data_home=tmp_path / "home")


@pytest.mark.parametrize("length", [0, 1000, 2900, 5759])
def test_a_truncated_file_is_refused(installed, length):
    path = installed / "miles" / "MILES_res2.50_star_m0221V.fits"
    assert path.stat().st_size == 5760
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ValueError, match="m0221V.fits is damaged, or no spectrum: it "):
        fetch_miles()


def test_another_grid_is_refused(installed):
    path = installed / "miles" / "MILES_res2.50_star_m0221V.fits"
    path.unlink()
    write_image(path, np.ones(20), 3541.0, 0.9)
    with pytest.raises(ValueError, match="m0221V.fits has 20 pixels from 3541 Angstrom, not 20 f"):
        fetch_miles()


def test_the_registries_name_every_file():
    miles, stelib = (_mangadap._read_registry(library) for library in ("miles", "stelib"))
    numbers = [k for k in range(1, 986) if k != 970]
    names = {f"MILES_res2.50_star_m{k:04d}V.fits" for k in numbers}
    assert miles.keys() == names | {"paramsMILES_v9.1.txt"}
    assert len(stelib) == 255
    assert all(len(digest) == 64 for digest in (miles | stelib).values())


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mangadap") is None, reason="no sdss-mangadap here")
def test_true_libraries():
    for library in ("miles", "stelib"):
        hashes = _mangadap._read_registry(library)
        files = _mangadap.library_files(
            library, data_home=None, download_if_missing=False, n_retries=0
        )
        for name, path in files.items():
            assert hashlib.sha256(path.read_bytes()).hexdigest() == hashes[name]
    spectra, labels = fetch_miles(labelled_only=False)
    assert spectra.shape == (984, 4300)
    assert labels.notna().sum().tolist() == [981, 981, 945]
    sun_like = spectra.meta["star_name"].tolist().index("HD010307")
    assert labels.iloc[sun_like].tolist() == [5838, 4.28, 0.03]
    spectra, labels = fetch_stelib()
    assert spectra.shape == (203, 6651)
    assert labels.iloc[spectra.meta["star_name"].tolist().index("HD006268")].tolist() == [
        *(4712, 1.13, -2.41)
    ]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("mangadap") is None, reason="no sdss-mangadap here")
@pytest.mark.skipif(not DATA.is_dir(), reason="SKSPEC_DATA: no real spectra here")
@pytest.mark.parametrize(
    ("fetch", "name", "window"),
    [(fetch_miles, "miles", (3000, 8000)), (fetch_stelib, "stelib", (4000, 6800))],
)
def test_true_libraries_agree_with_an_independent_reader(fetch, name, window):
    reference = np.load(DATA / name / f"{name}.npz")
    spectra, labels = fetch()
    spectra = spectra.window(*window)
    key = "star_id" if name == "miles" else "star_name"
    row = {star: k for k, star in enumerate(spectra.meta[key].tolist())}
    rows = [row[star] for star in reference[key].tolist()]
    np.testing.assert_allclose(spectra.wavelength, reference["wavelength"], rtol=1e-12)
    np.testing.assert_array_equal(labels.to_numpy()[rows], reference["labels"])
    # its bad pixels were interpolated
    flux, theirs = (
        np.where(spectra.good[rows], values, np.nan)
        for values in (spectra.flux[rows], reference["flux"])
    )
    assert np.isnan(flux).mean() < 0.003
    flux, theirs = (v / np.nanmedian(v, axis=1)[:, None] for v in (flux, theirs))
    np.testing.assert_allclose(flux, theirs, rtol=1e-6, atol=1e-6)
