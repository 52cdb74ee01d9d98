"""Spectra out of other packages' containers, and back."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from skspec import Spectra
from skspec._containers import find_name, medium_of_name, plain_name
from skspec.base import as_spectra

WAVELENGTH = np.array([5000.0, 5001, 5002.5, 5004])
FLUX = np.array([[1.0, 0.9, 0.8, 1.1], [2.0, 2.1, 1.7, 1.9]])


@pytest.mark.parametrize(
    ("name", "plain"),
    [
        ("Wave [nm]", ("wave", "nm")),
        ("wavelength (Angstrom)", ("wavelength", "Angstrom")),
        ("lambda_AA", ("lambda", "Angstrom")),
        ("wave_um", ("wave", "micron")),
        ("log10(lambda)", ("log10_lambda", "")),
        ("#FLUX", ("flux", "")),
        ("flux_err", ("flux_err", "")),
        ("Flux-Error", ("flux_error", "")),
    ],
)
def test_names_and_units_of_columns(name, plain):
    assert plain_name(name) == plain


def test_which_column_holds_what():
    names = ["LOGLAM", "Flux [Jy]", "e_flux", "IVAR"]
    assert find_name("wavelength", names) is None
    assert find_name("log_wavelength", names) == "LOGLAM"
    assert find_name("flux", names) == "Flux [Jy]"
    assert find_name("flux_err", names) == "e_flux"
    assert find_name("ivar", names) == "IVAR"
    assert medium_of_name("WAVE_AIR") == "air"
    assert medium_of_name("wavelength_vac [nm]") == "vacuum"
    assert medium_of_name("pair") is None


class TestSpecutils:
    @pytest.fixture(autouse=True)
    def packages(self):
        self.specutils = pytest.importorskip("specutils")
        self.units = pytest.importorskip("astropy.units")
        self.nddata = pytest.importorskip("astropy.nddata")

    def spectrum(self, flux=FLUX, unit="Angstrom", **kwargs):
        u = self.units
        axis = (WAVELENGTH * u.AA).to(unit, equivalencies=u.spectral())
        return self.specutils.Spectrum(flux=flux * u.Jy, spectral_axis=axis, **kwargs)

    @pytest.mark.parametrize("unit", ["Angstrom", "nm", "micron", "THz", "1/cm", "eV"])
    def test_any_unit_comes_in_blue_to_red(self, unit):
        spectra = Spectra.from_specutils(self.spectrum(unit=unit))
        # what falls in wavelength is turned, with its pixels; first pixels of FLUX are the bluest
        assert_allclose(spectra.wavelength, WAVELENGTH, rtol=1e-12)
        assert_array_equal(spectra.flux, FLUX)
        assert spectra.flux_unit == "Jy"

    def test_velocities_of_a_line(self):
        u = self.units
        spectrum = self.specutils.Spectrum(
            flux=[1.0, 0.5, 1.0] * u.Jy,
            spectral_axis=[-100.0, 0, 100] * u.km / u.s,
            rest_value=6562.8 * u.AA,
            velocity_convention="optical",
        )
        found = Spectra.from_specutils(spectrum).wavelength
        assert_allclose(found, 6562.8 * (1 + np.array([-100, 0, 100]) / 299_792.458), rtol=1e-12)

    @pytest.mark.parametrize(
        ("kind", "values"),
        [("StdDevUncertainty", 20.0), ("VarianceUncertainty", 400.0), ("InverseVariance", 1 / 400)],
    )
    def test_uncertainties_of_each_kind(self, kind, values):
        uncertainty = getattr(self.nddata, kind)(np.full(FLUX.shape, values))
        spectra = Spectra.from_specutils(self.spectrum(uncertainty=uncertainty))
        assert_allclose(spectra.flux_err, 20.0)

    def test_uncertainty_of_another_unit(self):
        sigma = self.nddata.StdDevUncertainty(np.full(FLUX.shape, 20.0), unit="mJy")
        assert_allclose(Spectra.from_specutils(self.spectrum(uncertainty=sigma)).flux_err, 0.02)

    def test_errors_of_nothing_known_are_refused(self):
        unknown = self.nddata.UnknownUncertainty(np.ones(FLUX.shape))
        with pytest.raises(ValueError, match="StdDevUncertainty, VarianceUncertainty"):
            Spectra.from_specutils(self.spectrum(uncertainty=unknown))

    def test_mask_and_zero_errors_are_bad(self):
        mask = np.zeros(FLUX.shape, dtype=bool)
        mask[0, 1] = True
        sigma = np.full(FLUX.shape, 0.1)
        sigma[1, 2] = 0.0
        spectrum = self.spectrum(mask=mask, uncertainty=self.nddata.StdDevUncertainty(sigma))
        good = Spectra.from_specutils(spectrum).good
        assert_array_equal(np.argwhere(~good), [[0, 1], [1, 2]])

    def test_spectral_axis_in_front(self):
        u = self.units
        spectrum = self.specutils.Spectrum(
            flux=FLUX.T * u.Jy, spectral_axis=WAVELENGTH * u.AA, spectral_axis_index=0
        )
        assert_array_equal(Spectra.from_specutils(spectrum).flux, FLUX)

    def test_cube_is_one_star_per_spaxel(self):
        u = self.units
        cube = np.arange(24.0).reshape(2, 3, 4)
        spectrum = self.specutils.Spectrum(
            flux=cube * u.Jy, spectral_axis=WAVELENGTH * u.AA, spectral_axis_index=2
        )
        assert_array_equal(Spectra.from_specutils(spectrum).flux, cube.reshape(6, 4))

    def test_velocity_and_meta(self):
        spectrum = self.spectrum(
            flux=FLUX[0],
            radial_velocity=-12.5 * self.units.km / self.units.s,
            meta={"medium": "air", "frame": "barycentric", "star_id": "HD 1", "header": {}},
        )
        spectra = Spectra.from_specutils(spectrum)
        assert (spectra.medium, spectra.frame) == ("air", "barycentric")
        assert spectra.meta["rv"].tolist() == [-12.5]
        assert spectra.meta["star_id"].tolist() == ["HD 1"]
        assert "header" not in spectra.meta

    def test_collection_of_one_grid_and_of_several(self):
        u = self.units
        sigma = self.nddata.StdDevUncertainty(np.full(FLUX.shape, 0.5))
        same = np.array([WAVELENGTH, WAVELENGTH])
        for grids, grid in [(same, None), (same + [[0], [0.5]], WAVELENGTH)]:
            collection = self.specutils.SpectrumCollection(
                flux=FLUX * u.Jy, spectral_axis=grids * u.AA, uncertainty=sigma
            )
            spectra = Spectra.from_specutils(collection, grid=grid)
            assert_allclose(spectra.flux[0], FLUX[0])
            assert_allclose(spectra.flux_err[0], 0.5)
            assert_array_equal(spectra.wavelength, WAVELENGTH)
        with pytest.raises(ValueError, match="different grids"):
            Spectra.from_specutils(collection)

    def test_list_of_unequal_spectra_needs_a_grid(self):
        u = self.units
        grids = [np.arange(5000.0, 5050), np.arange(5000.5, 5040.5)]
        found = self.specutils.SpectrumList(
            self.specutils.Spectrum(flux=(3 + 0.01 * w) * u.Jy, spectral_axis=w * u.AA)
            for w in grids
        )
        with pytest.raises(ValueError, match="different grids"):
            Spectra.from_specutils(found)
        new = np.arange(5005.0, 5035)
        assert_allclose(Spectra.from_specutils(found, grid=new).flux, [3 + 0.01 * new] * 2)

    def test_what_is_no_spectrum(self):
        with pytest.raises(ValueError, match="float is no Spectrum"):
            Spectra.from_specutils([1.0, 2.0])
        with pytest.raises(ValueError, match="str is no Spectrum"):
            Spectra.from_specutils("file.fits")
        with pytest.raises(ValueError, match="no spectrum in what"):
            Spectra.from_specutils([])
        pixels = self.specutils.Spectrum(flux=np.ones(4) * self.units.Jy)
        with pytest.raises(ValueError, match="is in pix"):
            Spectra.from_specutils(pixels)

    @pytest.mark.parametrize("orders", [False, True])
    @pytest.mark.parametrize("resolution", ["none", "one", "stars", "pixels"])
    def test_round_trip(self, orders, resolution):
        rng = np.random.default_rng(0)
        wavelength = np.r_[5000:5006, 5004:5010] if orders else np.arange(5000.0, 5012)
        spectra = Spectra(
            rng.normal(1, 0.1, (3, 12)),
            ivar=rng.uniform(50, 100, (3, 12)) * (rng.random((3, 12)) > 0.2),
            wavelength=wavelength,
            order=np.repeat([7, 3], 6) if orders else None,
            medium="air",
            frame="barycentric",
            flux_unit="Jy",
            resolution={
                "none": None,
                "one": 5000.0,
                "stars": [1e3, 2e3, 3e3],
                "pixels": np.linspace(1e3, 2e3, 12),
            }[resolution],
            meta={"star_id": ["a", "b", "c"], "rv": [1.0, -2.0, np.nan], "survey": "mine"},
        )
        listed = spectra.to_specutils()
        assert isinstance(listed, self.specutils.SpectrumList)
        assert len(listed) == (6 if orders else 3)
        assert listed[0].radial_velocity.to_value("km/s") == 1.0
        back = Spectra.from_specutils(listed)
        for name in ("flux", "ivar", "wavelength", "order"):
            assert_array_equal(getattr(back, name), getattr(spectra, name))
        assert (back.medium, back.frame, back.flux_unit) == ("air", "barycentric", "Jy")
        if resolution != "none":
            full = np.broadcast_to(back.resolution, spectra.shape)
            assert_array_equal(full, np.broadcast_to(spectra.resolution, spectra.shape))
        assert back.meta["star_id"].tolist() == ["a", "b", "c"]
        assert_array_equal(back.meta["rv"], [1.0, -2.0, np.nan])

    def test_unknown_noise_and_units_go_and_come_back(self):
        spectra = Spectra(FLUX, wavelength=WAVELENGTH, flux_unit="electrons per hour", frame="rest")
        [first, second] = spectra.to_specutils()
        assert first.uncertainty is None
        assert first.mask is None
        back = Spectra.from_specutils([first, second])
        assert back.ivar is None
        assert (back.frame, back.flux_unit) == ("rest", "electrons per hour")

    def test_to_specutils_needs_wavelengths_in_order(self):
        with pytest.raises(ValueError, match="no wavelengths"):
            Spectra(FLUX).to_specutils()
        with pytest.raises(ValueError, match=r"replace\(order="):
            Spectra(FLUX, wavelength=[5000, 5001, 5000.5, 5002]).to_specutils()


class TestXarray:
    @pytest.fixture(autouse=True)
    def packages(self):
        self.xr = pytest.importorskip("xarray")

    def array(self, **kwargs):
        coords = {"wavelength": ("wavelength", WAVELENGTH / 10, {"units": "nm"})}
        coords |= {"star_id": ("star", ["a", "b"]), "teff": ("star", [5000.0, 6000.0])}
        kwargs = {"dims": ("star", "wavelength"), "coords": coords} | kwargs
        return self.xr.DataArray(FLUX, **kwargs)

    @pytest.mark.parametrize(
        "name, values", [("flux_err", 100.0), ("variance", 1e4), ("ivar", 1e-4)]
    )
    def test_errors_in_their_own_unit(self, name, values):
        """A tenth of a Jy, in mJy, whatever power of it."""
        units = pytest.importorskip("astropy.units")
        power = {"flux_err": 1, "variance": 2, "ivar": -2}[name]
        flux = self.xr.DataArray(
            FLUX, dims=("n", "wave"), coords={"wave": WAVELENGTH}, attrs={"units": "Jy"}
        )
        errors = self.xr.full_like(flux, values).assign_attrs(units=str(units.mJy**power))
        spectra = Spectra.from_xarray(self.xr.Dataset({"flux": flux, name: errors}))
        assert_allclose(spectra.flux_err, 0.1)
        with pytest.raises(ValueError, match=f"{name} in 'K' does not fit a flux in 'Jy'"):
            other = self.xr.Dataset({"flux": flux, name: errors.assign_attrs(units="K")})
            Spectra.from_xarray(other)
        bare = self.xr.Dataset({"flux": flux.drop_attrs(), name: errors})
        with pytest.raises(ValueError, match="and the flux has none"):
            Spectra.from_xarray(bare)

    def test_a_model_names_the_way_in(self):
        """Not taken as bare numbers, without the wavelengths."""
        array = self.xr.DataArray(FLUX, dims=("n", "wave"), coords={"wave": WAVELENGTH})
        with pytest.raises(ValueError, match="use Spectra.from_xarray"):
            as_spectra(array)

    def test_array_with_its_coordinates(self):
        attrs = {"units": "Jy", "medium": "vacuum", "frame": "rest", "resolution": 2000}
        for array in (self.array(attrs=attrs), self.array(attrs=attrs).T):
            spectra = Spectra.from_xarray(array)
            assert_array_equal(spectra.flux, FLUX)
            assert_allclose(spectra.wavelength, WAVELENGTH, rtol=1e-15)
            assert spectra.meta["star_id"].tolist() == ["a", "b"]
            assert spectra.meta["teff"].tolist() == [5000.0, 6000.0]
            assert (spectra.medium, spectra.frame, spectra.flux_unit) == ("vacuum", "rest", "Jy")
            assert spectra.resolution == 2000

    def test_one_spectrum(self):
        spectra = Spectra.from_xarray(self.array()[1])
        assert_array_equal(spectra.flux, FLUX[1:])
        assert spectra.meta["star_id"].tolist() == ["b"]

    @pytest.mark.parametrize(
        ("name", "values"),
        [("ivar", 4.0), ("flux_err", 0.5), ("error", 0.5), ("variance", 0.25), ("sigma", 0.5)],
    )
    def test_dataset_with_errors_and_mask(self, name, values):
        flux = self.array()
        bad = self.xr.zeros_like(flux, dtype=bool)
        bad[0, 2] = True
        data = self.xr.Dataset({"flux": flux, name: self.xr.full_like(flux, values), "mask": bad})
        spectra = Spectra.from_xarray(data)
        expected = np.full(FLUX.shape, 0.5)
        expected[0, 2] = np.inf
        assert_allclose(spectra.flux_err, expected)

    def test_errors_that_all_stars_share(self):
        flux = self.array().assign_coords(ivar=("wavelength", [1.0, 2, 3, 4]))
        assert_array_equal(Spectra.from_xarray(flux).ivar, [[1, 2, 3, 4]] * 2)

    def test_logarithms_and_air(self):
        array = self.xr.DataArray(
            FLUX, dims=("n", "loglam"), coords={"loglam": np.log10(WAVELENGTH)}
        )
        assert_allclose(Spectra.from_xarray(array).wavelength, WAVELENGTH, rtol=1e-14)
        array = self.xr.DataArray(FLUX, dims=("n", "wave_air"), coords={"wave_air": WAVELENGTH})
        assert Spectra.from_xarray(array).medium == "air"

    def test_what_is_missing_is_named(self):
        with pytest.raises(ValueError, match="no coordinate of wavelengths"):
            Spectra.from_xarray(self.xr.DataArray(FLUX, dims=("a", "b")))
        data = self.xr.Dataset({"brightness": self.array()})
        with pytest.raises(ValueError, match=r"no variable of fluxes.*'brightness'"):
            Spectra.from_xarray(data)
        with pytest.raises(ValueError, match="ndarray is no DataArray"):
            Spectra.from_xarray(FLUX)
        array = self.xr.DataArray(
            FLUX,
            dims=("star", "pixel"),
            coords={"wavelength": (("star", "pixel"), [WAVELENGTH, WAVELENGTH])},
        )
        with pytest.raises(ValueError, match="one grid for all stars"):
            Spectra.from_xarray(array)
