"""`read_spectra` on files in the layouts of LAMOST, and in one of this module's own."""

import csv
import json
import subprocess
import sys
import warnings
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from scipy.optimize import minimize_scalar

from skspec import Spectra, air_to_vacuum, vacuum_to_air
from skspec.datasets import (
    SpectraStore,
    UnreadFilesWarning,
    _read_into_store,
    load_spectra,
    read_spectra,
    save_spectra,
)
from skspec.datasets.readers import SpectrumFileError, _registry, read_file, reader

fits = pytest.importorskip("astropy.io.fits")
from survey_layouts.lamost import (  # noqa: E402
    LRS_PIXELS,
    lrs_grid,
    star,
    write_lrs_image,
    write_lrs_table,
    write_mrs,
)

H_BETA = 4862.69
SHORT = 600  # pixels, 3700 to 4247 Angstrom


@pytest.fixture(autouse=True)
def toy_format():
    """Text: a line of JSON, with what a reader knows, then wavelength, flux, error."""

    @reader("toy", "Of these tests", lambda file: file.lines[0].startswith("# toy"))
    def read_toy(file):
        about = json.loads(file.lines[0][5:])
        wavelength, flux, error = np.loadtxt(file.lines[1:], unpack=True)
        order = about.pop("order", None)
        order = None if order is None else np.full(len(flux), order)
        meta = about.pop("meta", {})
        return Spectra(flux, flux_err=error, wavelength=wavelength, order=order, meta=meta, **about)

    yield
    del _registry.READERS["toy"]


def write_toy(path, wavelength, flux, error=0.01, **about):
    table = np.column_stack([wavelength, flux, np.full(len(flux), error)])
    lines = ["# toy" + json.dumps(about), *(" ".join(map(repr, row)) for row in table.tolist())]
    path.write_text("\n".join(lines))
    return path


@pytest.fixture
def stars(tmp_path):
    """Six stars of 600 pixels, at velocities that their headers have."""
    return [
        write_lrs_table(tmp_path / f"{k}.fits", rv=40.0 * k, obsid=k, n_pixels=SHORT)
        for k in range(6)
    ]


def velocities(spectra, line=H_BETA):
    """Velocity [km/s] at which the star of these tests has its line nearest to each spectrum's."""
    near = np.abs(spectra.wavelength - line) < 20
    rest = spectra.wavelength[near] * (H_BETA / line)
    found = []
    for flux in spectra.flux[:, near] / np.median(spectra.flux[:, near], axis=1, keepdims=True):

        def misfit(rv, flux=flux):
            model = star(rest, rv, level=1.0)
            return np.sum((flux - model / np.median(model)) ** 2)

        start = min(np.arange(-600, 601, 20.0), key=misfit)
        found.append(minimize_scalar(misfit, bounds=(start - 25, start + 25)).x)
    return np.array(found)


# -- which files -----------------------------------------------------------------------------------


class TestFiles:
    def test_folder_with_folders(self, tmp_path):
        (tmp_path / "night").mkdir()
        (tmp_path / ".hidden").write_text("no spectrum")
        for name, rv in [("b.fits", 1.0), ("night/a.fits.gz", 2.0), ("a.fits", 3.0)]:
            write_lrs_table(tmp_path / name, rv=rv, n_pixels=SHORT)
        spectra = read_spectra(tmp_path, frame=None)
        assert_allclose(spectra.meta["rv"], [3.0, 1.0, 2.0])

    def test_pattern_gives_files_by_name(self, stars, tmp_path):
        spectra = read_spectra(f"{tmp_path}/[2-4].fits")
        assert_array_equal(spectra.meta["obsid"], [2, 3, 4])

    def test_pattern_of_folders(self, stars, tmp_path):
        assert len(read_spectra(tmp_path.parent / "**" / tmp_path.name / "*.fits")) == 6

    def test_list_keeps_its_order_and_takes_each_file_once(self, stars):
        wanted = [stars[k] for k in (4, 0, 3, 0)]
        assert_array_equal(read_spectra(wanted).meta["obsid"], [4, 0, 3])
        assert_array_equal(read_spectra(iter(map(str, wanted))).meta["obsid"], [4, 0, 3])

    def test_order_is_kept_through_several_grids(self, tmp_path):
        files = [
            write_lrs_table(tmp_path / f"{k}.fits", obsid=k, n_pixels=SHORT - 3 * (k % 2))
            for k in range(5)
        ]
        assert_array_equal(read_spectra(files[::-1]).meta["obsid"], [4, 3, 2, 1, 0])

    def test_name_with_the_signs_of_a_pattern(self, tmp_path):
        path = write_lrs_table(tmp_path / "star[1]+2:3.fits", n_pixels=SHORT)
        assert len(read_spectra(path)) == 1

    @pytest.mark.parametrize("name", ["nothing.fits", "*.fits"])
    def test_nothing_there(self, tmp_path, name):
        with pytest.raises(FileNotFoundError, match="There is no such file"):
            read_spectra(tmp_path / name)

    def test_empty_folder_and_list(self, tmp_path):
        with pytest.raises(FileNotFoundError, match="The folder is empty"):
            read_spectra(tmp_path)
        with pytest.raises(FileNotFoundError, match="list is empty"):
            read_spectra([])


class TestFailures:
    @pytest.fixture
    def some_bad(self, stars, tmp_path):
        cut = tmp_path / "cut.fits"
        cut.write_bytes(stars[0].read_bytes()[:-2880])
        text = tmp_path / "notes.txt"
        text.write_text("clouds until two\n")
        return [stars[0], cut, tmp_path / "missing.fits", stars[1], text]

    def test_are_reported_and_the_rest_read(self, some_bad):
        with pytest.warns(UnreadFilesWarning, match="3 of 5 files could not be read") as record:
            spectra = read_spectra(some_bad)
        assert len(record) == 1
        assert record[0].filename == __file__
        assert_array_equal(spectra.meta["obsid"], [0, 1])
        report = spectra.meta["report"]
        assert report.n_files == 5
        reasons = [report.failed[str(path)] for path in some_bad if str(path) in report.failed]
        for reason, part in zip(reasons, ["truncated", "cannot be opened", "none of the known"]):
            assert part in reason
        assert not report.not_at_rest

    def test_raise(self, some_bad):
        with pytest.raises(SpectrumFileError, match=r"cut\.fits: it is truncated"):
            read_spectra(some_bad, errors="raise")

    def test_raise_from_a_worker(self, some_bad):
        with pytest.raises(SpectrumFileError, match=r"cut\.fits: it is truncated"):
            read_spectra(some_bad, errors="raise", n_jobs=2)

    def test_all(self, some_bad):
        with pytest.raises(SpectrumFileError, match="None of 2 files could be read.*truncated"):
            read_spectra(some_bad[1:3])

    def test_wrong_format(self, stars):
        with pytest.raises(SpectrumFileError, match="did you mean.*lamost_lrs"):
            read_spectra(stars, format="lamost_lr")
        with pytest.raises(SpectrumFileError, match="not laid out|neither"):
            read_spectra(stars, format="lamost_mrs")

    @pytest.mark.parametrize(
        "option", [{"frame": "galactic"}, {"medium": "water"}, {"errors": "ignore"}]
    )
    def test_options_that_are_not_known(self, stars, option):
        [[name, value]] = option.items()
        with pytest.raises(ValueError, match=f"{name}='{value}' is not known"):
            read_spectra(stars, **option)


# -- frames ----------------------------------------------------------------------------------------


class TestFrames:
    @pytest.fixture
    def moving(self, tmp_path):
        return [
            write_lrs_table(tmp_path / f"{k}.fits", rv=rv, n_pixels=LRS_PIXELS)
            for k, rv in enumerate([-250.0, 0.0, 37.0, 400.0])
        ]

    def test_rest_takes_velocities_out(self, moving):
        spectra = read_spectra(moving)
        assert spectra.frame == "rest"
        assert_allclose(velocities(spectra), 0, atol=1)
        assert_allclose(spectra.meta["rv_removed"], [-250, 0, 37, 400], atol=1e-6)
        assert_array_equal(spectra.meta["star_frame"], "rest")

    def test_rest_on_a_given_grid(self, moving):
        spectra = read_spectra(moving, grid=np.arange(4700.0, 5000.0, 0.7))
        assert_allclose(velocities(spectra), 0, atol=1)

    def test_rest_is_the_star_at_rest(self, moving):
        spectra = read_spectra(moving)
        expected = star(lrs_grid())
        inside = slice(20, -20)
        for row in spectra.flux:
            assert_allclose(row[inside], expected[inside], atol=6)  # of 1000

    def test_none_leaves_all(self, moving):
        spectra = read_spectra(moving, frame=None)
        assert spectra.frame == "heliocentric"
        assert_allclose(velocities(spectra), [-250, 0, 37, 400], atol=1)
        assert "rv_removed" not in spectra.meta
        assert_array_equal(spectra.flux[3], star(lrs_grid(), 400.0))

    def test_barycentric_leaves_heliocentric(self, moving):
        spectra = read_spectra(moving, frame="barycentric")
        assert spectra.frame == "heliocentric"
        assert not spectra.meta["report"].not_at_rest

    def test_velocity_not_known(self, moving, tmp_path):
        unknown = write_lrs_table(tmp_path / "z.fits", rv=80.0, Z=None)
        galaxy = write_lrs_table(tmp_path / "g.fits", rv=80.0, CLASS="GALAXY")
        with pytest.warns(UnreadFilesWarning, match="2 files are not brought to the rest frame"):
            spectra = read_spectra([moving[2], unknown, galaxy])
        assert spectra.frame is None
        assert_array_equal(spectra.meta["star_frame"], ["rest", "heliocentric", "heliocentric"])
        assert_allclose(velocities(spectra), [0, 80, 80], atol=1)
        assert_array_equal(spectra.meta["rv_removed"][1:], 0)
        assert spectra.meta["report"].not_at_rest == (str(unknown), str(galaxy))

    @pytest.mark.parametrize(
        ("frame", "expected", "name"),
        [("rest", 0.0, "rest"), ("barycentric", 50.0, "barycentric"), (None, 30.0, "topocentric")],
    )
    def test_topocentric(self, tmp_path, frame, expected, name):
        # seen from the moving Earth at 30 km/s, and 50 from the barycentre
        wavelength = np.geomspace(4800, 4930, 900)
        path = write_toy(
            tmp_path / "t.txt",
            wavelength,
            star(wavelength, 30.0, level=1.0),
            frame="topocentric",
            meta={"rv": 30.0, "berv": 20.0, "star_id": "s"},
        )
        spectra = read_spectra(path, frame=frame)
        assert spectra.frame == name
        assert_allclose(velocities(spectra), expected, atol=1)
        if frame:
            assert_allclose(spectra.meta["rv"], 50, atol=1e-3)

    def test_topocentric_of_unknown_velocity_is_brought_to_the_barycentre(self, tmp_path):
        wavelength = np.geomspace(4800, 4930, 900)
        flux = star(wavelength, 30.0, level=1.0)
        path = write_toy(
            tmp_path / "t.txt", wavelength, flux, frame="topocentric", meta={"berv": 20.0}
        )
        with pytest.warns(UnreadFilesWarning, match="rest frame"):
            spectra = read_spectra(path)
        assert spectra.frame == "barycentric"
        assert_allclose(velocities(spectra), 50, atol=1)
        assert_array_equal(spectra.meta["rv_removed"], 0)

    def test_frame_not_known_stays(self, tmp_path):
        wavelength = np.geomspace(4800, 4930, 900)
        path = write_toy(tmp_path / "t.txt", wavelength, star(wavelength), meta={"rv": 30.0})
        with pytest.warns(UnreadFilesWarning, match="rest frame"):
            spectra = read_spectra(path)
        assert spectra.frame is None
        assert_allclose(velocities(spectra), 0, atol=1)

    def test_at_rest_already(self, tmp_path):
        wavelength = np.geomspace(4800, 4930, 900)
        flux = star(wavelength, level=1.0)
        path = write_toy(tmp_path / "t.txt", wavelength, flux, frame="rest", meta={"rv": 30.0})
        spectra = read_spectra(path)
        assert_array_equal(spectra.flux[0], flux.astype(float))
        assert np.isnan(spectra.meta["rv_removed"][0])


# -- media, grids, units ---------------------------------------------------------------------------


class TestMedium:
    @pytest.fixture
    def both(self, tmp_path):
        air = np.linspace(4800, 4930, 900)
        vacuum = air_to_vacuum(air)
        flux = star(vacuum, level=1.0)
        about = {"frame": "rest"}
        return [
            write_toy(tmp_path / "air.txt", air, flux, medium="air", **about),
            write_toy(tmp_path / "vacuum.txt", vacuum, flux, medium="vacuum", **about),
            write_toy(tmp_path / "unknown.txt", vacuum, flux, **about),
        ]

    def test_stays_where_it_is_one(self, both):
        assert read_spectra(both[0]).medium == "air"
        assert read_spectra(both[1]).medium == "vacuum"

    @pytest.mark.parametrize(("medium", "there"), [(None, "vacuum"), ("vacuum",) * 2, ("air",) * 2])
    def test_mixed(self, both, medium, there):
        spectra = read_spectra(both[:2], medium=medium)
        assert spectra.medium == there
        line = H_BETA if there == "vacuum" else vacuum_to_air(H_BETA)
        assert_allclose(velocities(spectra, line), 0, atol=1)

    def test_of_the_spectra_that_are_the_grid(self, both):
        grid = read_spectra(both[0])
        spectra = read_spectra(both[1], grid=grid)
        assert spectra.medium == "air"
        assert_allclose(spectra.flux, grid.flux, atol=1e-3)

    def test_unknown_is_told(self, both):
        with pytest.warns(UnreadFilesWarning, match="not known to be in air"):
            spectra = read_spectra(both, medium="air")
        assert_allclose(spectra.wavelength, np.linspace(4800, 4930, 900))


class TestGrid:
    def test_one_file_is_as_read_file_gives_it(self, stars, tmp_path):
        files = [stars[3], write_mrs(tmp_path / "m.fits"), write_lrs_image(tmp_path / "i.fits.gz")]
        for path in files:
            [expected] = read_file(path)
            spectra = read_spectra(path, frame=None)
            assert_array_equal(spectra.flux, expected.flux)
            assert_array_equal(spectra.ivar, expected.ivar)
            assert_array_equal(spectra.wavelength, expected.wavelength)
            assert_array_equal(spectra.order, expected.order)
            assert spectra.about == expected.about
            assert spectra.dtype == expected.dtype
            for name, value in expected.meta.items():
                assert_array_equal(spectra.meta[name], value)
            assert set(spectra.meta) - set(expected.meta) == {
                "star_frame",
                "star_flux_unit",
                "report",
            }

    def test_given(self, stars):
        grid = np.arange(3800.0, 4100.0, 2.0)
        spectra = read_spectra(stars, grid=grid)
        assert_array_equal(spectra.wavelength, grid)
        expected = star(grid)
        assert_allclose(spectra.flux, np.tile(expected, (6, 1)), rtol=1e-4)

    def test_of_spectra(self, stars):
        grid = read_spectra(stars[0], frame=None)[:, 100:200]
        spectra = read_spectra(stars, grid=grid)
        assert_array_equal(spectra.wavelength, grid.wavelength)

    def test_quantity(self, stars):
        units = pytest.importorskip("astropy.units")
        spectra = read_spectra(stars, grid=np.arange(380.0, 410.0, 0.2) * units.nm)
        assert_allclose(spectra.wavelength, np.arange(3800.0, 4100.0, 2.0))

    @pytest.mark.parametrize("grid", ["log", [4000.0], [4000.0, 3900.0]])
    def test_that_is_none(self, stars, grid):
        with pytest.raises(ValueError, match="grid"):
            read_spectra(stars, grid=grid)

    @pytest.mark.parametrize("grid", [None, "common"])
    def test_of_most(self, tmp_path, grid):
        # as LAMOST has files of 3906 pixels among those of 3909
        files = [
            write_lrs_table(tmp_path / f"{k}.fits", obsid=k, n_pixels=SHORT - 3 * (k == 2))
            for k in range(4)
        ]
        spectra = read_spectra(files, grid=grid)
        assert_array_equal(spectra.wavelength, lrs_grid(SHORT))
        assert_array_equal((~spectra.good).sum(axis=1), [0, 0, 3, 0])
        assert_allclose(spectra.flux[2, :-3], spectra.flux[1, :-3], rtol=1e-6)

    def test_outside_is_told(self, stars):
        with pytest.warns(UnreadFilesWarning, match="6 files are without any good pixel"):
            spectra = read_spectra(stars, grid=np.arange(6000.0, 6100.0))
        assert not spectra.good.any()

    def test_arms_are_orders(self, tmp_path):
        files = [
            write_mrs(tmp_path / f"{k}.fits", rv=10.0 * k, obsid=k, n_pixels=900) for k in range(2)
        ]
        spectra = read_spectra(files)
        assert_array_equal(np.unique(spectra.order), [0, 1])
        merged = read_spectra(files, grid=np.geomspace(4950, 4990, 500))
        assert merged.order is None
        assert_allclose(merged.flux, np.tile(star(merged.wavelength, width=0.5), (2, 1)), rtol=1e-3)

    def test_flux_units(self, tmp_path):
        grid = np.linspace(4000, 4100, 50)
        units = ["Jy", "Jy", "adu"]
        files = [
            write_toy(tmp_path / f"{k}", grid, np.ones(50), flux_unit=unit, frame="rest")
            for k, unit in enumerate(units)
        ]
        spectra = read_spectra(files)
        assert spectra.flux_unit is None
        assert_array_equal(spectra.meta["star_flux_unit"], units)
        assert read_spectra(files[:2]).flux_unit == "Jy"

    def test_no_wavelengths_in_common(self, tmp_path):
        files = [
            write_toy(tmp_path / f"{k}", low + np.arange(50.0), np.ones(50), frame="rest")
            for k, low in enumerate([4000.0, 8000.0])
        ]
        with pytest.raises(ValueError, match="no wavelengths in common"):
            read_spectra(files)


class TestExposures:
    @pytest.fixture
    def visits(self, tmp_path):
        return write_mrs(tmp_path / "m.fits", exposures=(11, 12, 13), n_pixels=300)

    def test_combined_only(self, visits):
        assert_array_equal(read_spectra(visits, frame=None).meta["exposure"], [""])

    def test_all(self, visits):
        spectra = read_spectra(visits, frame=None, exposures=True)
        assert_array_equal(spectra.meta["exposure"], ["", "11", "12", "13"])
        assert np.ptp(spectra.flux, axis=0).max() == 0

    def test_files_without_combined(self, tmp_path):
        path = write_mrs(tmp_path / "m.fits", coadd=False, n_pixels=300)
        assert len(read_spectra(path, frame=None)) == 2


class TestParts:
    """Stars of which each file holds a part, as GALAH's cameras do."""

    RANGES = ((4713.0, 4903.0), (5649.0, 5873.0), (6478.0, 6737.0))

    @pytest.fixture
    def cameras(self, tmp_path):
        files = []
        for number, (camera, (low, high)) in product(range(3), enumerate(self.RANGES)):
            wavelength = np.linspace(low, high, 200)
            path = write_toy(
                tmp_path / f"{number}{camera}.txt",
                wavelength,
                star(wavelength, level=1.0 + number),
                frame="rest",
                order=camera,
                meta={"star_id": f"s{number}", "part": f"{camera}"},
            )
            files.append(path)
        return files

    def check(self, spectra):
        assert_array_equal(spectra.meta["star_id"], ["s0", "s1", "s2"])
        assert_array_equal(spectra.meta["part"], "0+1+2")
        assert spectra.good.all()
        expected = np.outer([1, 2, 3], star(spectra.wavelength, level=1.0))
        assert_allclose(spectra.flux, expected, rtol=1e-6)

    def test_are_one_star(self, cameras):
        spectra = read_spectra(cameras)
        self.check(spectra)
        assert_array_equal(np.unique(spectra.order), [0, 1, 2])
        self.check(read_spectra(cameras[::-1])[::-1].replace(meta=spectra.meta))

    def test_missing_camera_is_bad_pixels(self, cameras):
        spectra = read_spectra(cameras[:4] + cameras[5:])
        assert len(spectra) == 3
        assert_array_equal(~spectra.good[1], spectra.order == 1)
        assert spectra.meta["part"][1] == "0+2"

    def test_two_observations_of_a_star_stay_two(self, tmp_path):
        files = []
        for night, (camera, (low, high)) in product("ab", enumerate(self.RANGES)):
            wavelength = np.linspace(low, high, 200)
            meta = {"star_id": "s", "part": f"{camera}", "observation": night}
            path = tmp_path / f"{night}{camera}.txt"
            flux = star(wavelength, level=1.0 + (night == "b"))
            files.append(write_toy(path, wavelength, flux, frame="rest", order=camera, meta=meta))
        spectra = read_spectra(files)
        assert_array_equal(spectra.meta["observation"], ["a", "b"])
        assert_allclose(spectra.flux[1], 2 * spectra.flux[0], rtol=1e-6)

    def test_the_same_part_twice_is_of_two_spectra(self, cameras):
        again = cameras[0].with_suffix(".again")
        again.write_bytes(cameras[0].read_bytes())
        spectra = read_spectra([*cameras[:3], again])
        assert_array_equal(spectra.meta["part"], ["0+1+2", "0"])
        assert_array_equal(spectra.flux[1][spectra.order == 0], spectra.flux[0][spectra.order == 0])

    def test_overlap_is_averaged(self, tmp_path):
        wavelength = np.linspace(4000, 4100, 50)
        about = {"frame": "rest"}
        files = [
            write_toy(tmp_path / f"{k}", wavelength, np.full(50, flux), error, **about, meta=meta)
            for k, (flux, error) in enumerate([(1.0, 0.1), (2.0, 0.2)])
            for meta in [{"star_id": "a", "part": f"{k}"}]
        ]
        spectra = read_spectra(files)
        assert_allclose(spectra.flux, (1 * 100 + 2 * 25) / 125 * np.ones((1, 50)))
        assert_allclose(spectra.ivar, 125)

    @pytest.mark.parametrize("n_files", [1, 2, 4, 5])
    def test_stay_one_in_the_chunks_of_a_store(self, cameras, tmp_path, monkeypatch, n_files):
        pytest.importorskip("zarr")
        monkeypatch.setattr(_read_into_store, "FIRST", n_files)
        monkeypatch.setattr(_read_into_store, "MOST", n_files)
        grid = read_spectra(cameras)[:0]
        store = read_spectra(cameras, grid=grid, store=tmp_path / "store")
        self.check(store[:])
        again = read_spectra(cameras, store=tmp_path / "store")
        assert len(again) == 3

    def test_part_that_comes_too_late_for_a_store(self, cameras, tmp_path):
        pytest.importorskip("zarr")
        grid = read_spectra(cameras)[:0]
        read_spectra(cameras[:2], grid=grid, store=tmp_path / "store")
        with pytest.warns(UnreadFilesWarning, match="must follow each other"):
            store = read_spectra(cameras, store=tmp_path / "store")
        assert_array_equal(store.meta["star_id"], ["s0", "s1", "s2"])


# -- workers, stores, identities -------------------------------------------------------------------


def assert_same_spectra(one, other, *, without=("report",)):
    assert_array_equal(one.flux, other.flux)
    assert_array_equal(one.ivar, other.ivar)
    assert_array_equal(one.wavelength, other.wavelength)
    assert (one.medium, one.frame, one.flux_unit) == (other.medium, other.frame, other.flux_unit)
    assert set(one.meta) - set(without) == set(other.meta) - set(without)
    for name in set(one.meta) - set(without):
        assert_array_equal(one.meta[name], other.meta[name])


def test_two_workers_give_the_same(tmp_path):
    files = [
        write_lrs_table(tmp_path / f"{k:02}.fits", rv=9.0 * k, obsid=k, n_pixels=SHORT - k % 3)
        for k in range(40)
    ]
    assert_same_spectra(read_spectra(files), read_spectra(files, n_jobs=2))


def test_tells_how_far_it_is(stars, capsys):
    read_spectra(stars, verbose=True)
    told = capsys.readouterr()
    assert told.err.endswith("6 of 6 files read, 0 failed\n")
    assert not told.out


def test_identities_survive_files_and_slices(stars, tmp_path):
    spectra = read_spectra(stars)
    assert spectra.meta["obsid"].dtype.kind == "i"
    save_spectra(tmp_path / "out.npz", spectra)
    back, _ = load_spectra(tmp_path / "out.npz")
    for some in (spectra[[4, 2]], back[[4, 2]]):
        assert_array_equal(some.meta["star_id"], ["J000004.00+200000.0", "J000002.00+200000.0"])
        assert_array_equal(some.meta["file"], [str(stars[4]), str(stars[2])])


def test_readers_of_users_in_other_processes(tmp_path):
    """Workers know what is registered here: else the table reader would take these files."""
    grid = np.linspace(4000, 4100, 50)
    about = {"frame": "rest", "medium": "air", "meta": {"star_id": "toy"}}
    files = [write_toy(tmp_path / f"{k:02d}", grid, np.ones(50), **about) for k in range(20)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped")
        spectra = read_spectra(files, n_jobs=2)
    assert spectra.medium == "air"
    assert set(spectra.meta["format"]) == {"toy"}


@pytest.mark.parametrize("files", [None, 3, [3], [None]])
def test_no_paths(files):
    with pytest.raises(ValueError, match="is no path"):
        read_spectra(files)


class TestStore:
    @pytest.fixture(autouse=True)
    def small_chunks(self, monkeypatch):
        pytest.importorskip("zarr")
        monkeypatch.setattr(_read_into_store, "FIRST", 2)
        monkeypatch.setattr(_read_into_store, "MOST", 2)

    def test_holds_what_is_in_memory(self, stars, tmp_path):
        store = read_spectra(stars, store=tmp_path / "store")
        assert isinstance(store, SpectraStore)
        assert_same_spectra(read_spectra(stars), store[:])
        assert_array_equal(store.resolution, np.full((6, 1), 1800.0))

    def test_failed_files_are_listed(self, stars, tmp_path):
        bad = tmp_path / "bad.fits"
        bad.write_bytes(stars[0].read_bytes()[:-2880])
        folder = tmp_path / "store"
        with pytest.warns(UnreadFilesWarning, match=r"1 of 7 files.*failed\.csv"):
            store = read_spectra([*stars[:3], bad, *stars[3:]], store=folder)
        assert len(store) == 6
        with open(folder / "failed.csv", newline="") as file:
            [row] = csv.DictReader(file)
        assert row["file"] == str(bad)
        assert "truncated" in row["reason"]

    def test_goes_on_where_it_was_stopped(self, stars, tmp_path, monkeypatch):
        calls = []

        def stop_at_the_third(self, spectra, labels=None, append=SpectraStore.append):
            calls.append(len(spectra))
            if len(calls) == 3:
                raise KeyboardInterrupt
            return append(self, spectra, labels)

        with monkeypatch.context() as patch:
            patch.setattr(SpectraStore, "append", stop_at_the_third)
            with pytest.raises(KeyboardInterrupt):
                read_spectra(stars, store=tmp_path / "store")
        assert len(SpectraStore(tmp_path / "store")) == 4
        store = read_spectra(stars, store=tmp_path / "store")
        assert_same_spectra(read_spectra(stars), store[:])
        assert len(read_spectra(stars, store=tmp_path / "store")) == 6

    def test_unlike_files(self, stars, tmp_path):
        """What a store has one of is that of its first chunk."""
        grid = lrs_grid(SHORT)
        flux = star(grid)
        about = {"medium": "air", "frame": "heliocentric"}
        wavelength = vacuum_to_air(grid)
        other = write_toy(
            tmp_path / "other.txt",
            wavelength,
            flux,
            **about,
            meta={"rv": 0.0, "obsid": "x", "v": 1},
        )
        still = write_toy(tmp_path / "unknown.txt", wavelength, flux, **about)
        with pytest.warns(UnreadFilesWarning, match="its frame is heliocentric"):
            store = read_spectra([*stars, other, still], store=tmp_path / "store")
        assert len(store) == 7
        assert store.medium == "vacuum"
        last = store[6]
        assert last.meta["obsid"] == [-1]
        assert np.isnan(last.meta["snr_g"][0])
        assert_allclose(last.flux[0, 5:-5], flux[5:-5], rtol=1e-3)

    @pytest.mark.parametrize("asked", ["medium", "grid", "grid in air"])
    def test_of_another_medium_or_grid_is_refused(self, stars, tmp_path, asked):
        """Not labelled as what the store has: 83 km/s between air and vacuum."""
        store = read_spectra(stars[:3], store=tmp_path / "store")
        options = {
            "medium": {"medium": "air"},
            "grid": {"grid": store.wavelength[::2]},
            "grid in air": {"grid": store[:].to_medium("air")},
        }[asked]
        with pytest.raises(ValueError, match="grid" if asked == "grid" else "vacuum, not in air"):
            read_spectra(stars, store=tmp_path / "store", **options)
        assert len(SpectraStore(tmp_path / "store")) == 3
        again = read_spectra(stars, store=tmp_path / "store", medium="vacuum", grid=store[:0])
        assert_same_spectra(read_spectra(stars), again[:])

    def test_paths_of_a_file_are_one(self, stars, tmp_path, monkeypatch):
        monkeypatch.chdir(stars[0].parent)
        here = [star.name for star in stars]
        read_spectra(here[:2], store=tmp_path / "store")
        assert len(read_spectra(stars, store=tmp_path / "store")) == len(stars)
        both = read_spectra([here[2], *stars[:3], here[0]])
        assert both.meta["file"].tolist() == [here[2], str(stars[0]), str(stars[1])]

    def test_other_flux_unit_fails(self, tmp_path):
        grid = np.linspace(4000, 4100, 50)
        files = [
            write_toy(tmp_path / f"{k}", grid, np.ones(50), flux_unit=unit, frame="rest")
            for k, unit in enumerate(["Jy", "Jy", "adu", None])
        ]
        with pytest.warns(UnreadFilesWarning, match="its flux unit is adu.*with Jy"):
            store = read_spectra(files, store=tmp_path / "store")
        assert (len(store), store.flux_unit) == (3, "Jy")

    def test_all_fail(self, tmp_path):
        (tmp_path / "a.txt").write_text("nothing")
        with pytest.raises(SpectrumFileError, match="None of 1 files"):
            read_spectra(tmp_path / "a.txt", store=tmp_path / "store")


PEAK = """
import sys
from pathlib import Path
from skspec.datasets import read_spectra


def peak():  # kB; the resident set of getrusage is that of the parent, too
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1])


folder = Path(sys.argv[1])
read_spectra(sorted(folder.glob("*.fits"))[:8], store=folder / "warm")
before = peak()
store = read_spectra(folder / "*.fits", store=folder / "store")
print(len(store), peak() - before)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="needs /proc")
def test_memory_of_a_store_does_not_grow_with_its_size(tmp_path):
    pytest.importorskip("zarr")
    data = write_lrs_table(tmp_path / "0000.fits", rv=50.0).read_bytes()
    grown = []
    for n in (1500, 4500):
        for k in range(n):
            (tmp_path / f"{k:04}.fits").write_bytes(data)
        out = subprocess.run(
            [sys.executable, "-c", PEAK, str(tmp_path)], capture_output=True, text=True, check=True
        ).stdout.split()
        assert int(out[0]) == n
        grown.append(int(out[1]) / 1024)
        for name in ("store", "warm"):
            subprocess.run(["rm", "-r", str(tmp_path / name)], check=True)
    assert grown[1] < 300  # MB; 4500 spectra with errors are 140 in single precision
    assert grown[1] - grown[0] < 60


@pytest.mark.parametrize("n_jobs", [None, 2])
def test_what_readers_warn_of_is_told_of_every_file(tmp_path, n_jobs):
    rows = 100
    wcs = fits.Header({"CRVAL1": 4713.6, "CDELT1": 0.046, "CRPIX1": 1.0, "CUNIT1": "Angstroms"})
    files = []
    for number in range(3):
        path = tmp_path / f"14020700120100{number}1.fits"
        hdus = [
            fits.PrimaryHDU(np.full(rows, 800.0, np.float32), wcs),
            fits.ImageHDU(np.full(rows, 0.02 * (number == 1)), wcs, "input_sigma"),
        ]
        fits.HDUList(hdus).writeto(path)
        files.append(path)
    with pytest.warns(
        UnreadFilesWarning, match=r"2 files have something wrong.*100% of its errors"
    ):
        spectra = read_spectra(files, frame=None, n_jobs=n_jobs)
    assert list(spectra.meta["report"].warned) == [str(files[0]), str(files[2])]
    assert np.isfinite(spectra.ivar[1]).all() and np.isinf(spectra.ivar[[0, 2]]).all()
