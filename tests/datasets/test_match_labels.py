"""Labels of given spectra: by identifier, by file, by position."""

import numpy as np
import pandas as pd
import pytest

from skspec.datasets import match_labels, read_labels
from skspec.spectra import Spectra

LONG = 4611686018427387905  # its neighbours are the same float


def stars(**meta):
    n = len(next(iter(meta.values())))
    return Spectra(np.arange(n)[:, None] + np.ones((n, 5)), meta=meta)


CATALOGUE = {
    "OBSID": np.array([LONG, LONG + 2, 7]),
    "APOGEE_ID": np.array(["2M01+05 ", " 2M02-11", "VESTA"]),
    "FILENAME": np.array(["apStar-r6-2M01.fits", "apStar-r6-2M02.fits.gz", "apStar-r6-2M03.fits"]),
    "TEFF": [5000.0, 4500.0, 5777.0],
    "E_TEFF": [50.0, 45.0, 10.0],
}


@pytest.mark.parametrize(
    ("key", "on", "values"),
    [
        ("obsid", "obsid", np.array([7, LONG, LONG])),
        ("obsid", "OBSID", [7, LONG, LONG]),
        ("obsid", "obsid", np.array(["7", f" {LONG}", str(LONG)])),
        ("obsid", "obsid", np.array([b"007", str(LONG).encode(), str(LONG).encode()])),
        ("star", {"star": "APOGEE_ID"}, ["VESTA", "2M01+05", " 2M01+05 "]),
        (
            "file",
            {"file": "FILENAME"},
            ["/data/a/apStar-r6-2M03.fits.gz", "apStar-r6-2M01", "b/apStar-r6-2M01.fits"],
        ),
    ],
)
def test_by_identifier(key, on, values):
    spectra, labels, errors = match_labels(
        stars(**{key: values}), CATALOGUE, on, {"teff": "TEFF"}, ["E_TEFF"]
    )
    assert labels["teff"].tolist() == [5777.0, 5000.0, 5000.0]
    assert errors["teff"].tolist() == [10.0, 50.0, 50.0]
    np.testing.assert_array_equal(spectra.flux[:, 0], [1, 2, 3])


def test_those_that_are_not_there_are_counted():
    spectra = stars(obsid=[5, LONG + 1, 7, LONG + 2])
    with pytest.warns(UserWarning, match=f"2 of 4 spectra are not in .*such as 5, {LONG + 1}"):
        found, labels = match_labels(spectra, CATALOGUE, "obsid", {"teff": "TEFF"})
    np.testing.assert_array_equal(found.flux[:, 0], [3, 4])
    assert labels["teff"].tolist() == [5777.0, 4500.0]
    assert labels.index.tolist() == [7, LONG + 2]
    assert found.meta["obsid"].tolist() == [7, LONG + 2]
    with pytest.raises(ValueError, match="None of the 2 spectra is in the catalogue"):
        match_labels(spectra[:2], CATALOGUE, "obsid", {"teff": "TEFF"})


def test_several_rows_of_a_star_are_refused():
    catalogue = {"id": ["a", "a ", "b", "c", "c"], "teff": [5000.0, 5100.0, 4000.0, 1.0, 2.0]}
    with pytest.raises(ValueError, match="several rows of a .id.: keep one"):
        match_labels(stars(id=["b", "a"]), catalogue, "id", ["teff"])
    _, labels = match_labels(stars(id=["b"]), catalogue, "id", ["teff"])  # others do not matter
    assert labels["teff"].tolist() == [4000.0]


def test_missing_identifiers_match_nothing():
    catalogue = {"id": np.ma.array([1, 2, 3], mask=[0, 1, 1]), "teff": [5000.0, 4000.0, 4500.0]}
    spectra = stars(id=pd.array([1, None], dtype="Int64"))
    with pytest.warns(UserWarning, match="1 of 2 spectra"):
        _, labels = match_labels(spectra, catalogue, "id", ["teff"])
    assert labels["teff"].tolist() == [5000.0]


def test_minus_one_is_no_identifier():
    """As `read_spectra` has it for stars whose file does not tell."""
    catalogue = {"source_id": [-1, 5], "teff": [5000.0, 4000.0]}
    with pytest.warns(UserWarning, match="2 of 3 spectra"):
        _, labels = match_labels(stars(source_id=[-1, 5, -1]), catalogue, "source_id", ["teff"])
    assert labels["teff"].tolist() == [4000.0]


def test_integers_that_were_floats(tmp_path):
    path = tmp_path / "catalogue.csv"
    path.write_text("obsid,teff\n7.0,5000\n8.0,4000\nunknown,1\n")
    _, labels = match_labels(stars(obsid=[8, 7]), path, "obsid", ["teff"])
    assert labels["teff"].tolist() == [4000.0, 5000.0]


def test_labels_that_were_read_before(tmp_path):
    path = tmp_path / "catalogue.csv"
    pd.DataFrame(CATALOGUE).assign(TEFF=[5000.0, -9999, 5777]).to_csv(path, index=False)
    labels = read_labels(path, {"teff": "TEFF"}, missing=-9999, id="OBSID")
    spectra = stars(obsid=[7, LONG + 2])
    for table, options in (
        (labels, {}),
        (path, {"labels": {"teff": "TEFF"}, "missing": -9999}),
    ):
        _, found = match_labels(spectra, table, "obsid", **options)
        np.testing.assert_array_equal(found["teff"], [5777.0, np.nan])
        assert list(found) == ["teff"]


def test_of_a_fits_table(tmp_path):
    table = pytest.importorskip("astropy.table").Table(CATALOGUE)
    table.write(tmp_path / "catalogue.fits")
    spectra = stars(star_id=["2M02-11", "2M01+05"])
    _, labels = match_labels(
        spectra, tmp_path / "catalogue.fits", {"star_id": "apogee_id"}, {"teff": "TEFF"}
    )
    assert labels["teff"].tolist() == [4500.0, 5000.0]


class TestSky:
    ARCSEC = 1 / 3600

    @pytest.fixture(autouse=True)
    def needs_astropy(self):
        pytest.importorskip("astropy")

    def catalogue(self, **more):
        ra, dec = np.array([359.9999, 10.0, 120.0]), np.array([0.0, 80.0, -45.0])
        return {"RA": ra, "DEC": dec, "TEFF": [5000.0, 4500.0, 5777.0]} | more

    def test_nearest(self):
        # over the meridian; 1 arcsec in right ascension at 80 degrees is 5.8 of its own
        spectra = stars(
            ra=[0.0, 10 + 5 * self.ARCSEC, 120.0, 200.0],
            dec=[0.0, 80.0, -45 + 1.9 * self.ARCSEC, 0.0],
        )
        with pytest.warns(UserWarning, match="1 of 4 spectra"):
            _, labels = match_labels(spectra, self.catalogue(), "sky", ["teff"])
        assert labels["teff"].tolist() == [5000.0, 4500.0, 5777.0]
        spectra = spectra[:3]
        with pytest.warns(UserWarning, match="1 of 3 spectra"):
            _, labels = match_labels(spectra, self.catalogue(), "sky", ["teff"], max_distance=1.5)
        assert labels["teff"].tolist() == [5000.0, 4500.0]

    def test_other_names_units_and_files(self, tmp_path):
        from astropy import units
        from astropy.table import QTable

        given = self.catalogue()
        table = QTable(
            {
                "ra_rad": (given["RA"] * units.deg).to(units.rad),
                "dec": given["DEC"] * units.deg,
                "TEFF": given["TEFF"],
            }
        )
        table.write(tmp_path / "sky.fits")
        spectra = stars(ra=[120.0, 10.0], dec=[-45.0, 80.0])
        for source in (table, tmp_path / "sky.fits"):
            _, labels = match_labels(spectra, source, {"ra": "ra_rad", "dec": "dec"}, ["teff"])
            assert labels["teff"].tolist() == [5777.0, 4500.0]
        (tmp_path / "sky.csv").write_text(pd.DataFrame(given).to_csv(index=False))
        _, labels = match_labels(spectra, tmp_path / "sky.csv", "sky", ["teff"])
        assert labels["teff"].tolist() == [5777.0, 4500.0]

    @pytest.mark.parametrize("on", ["sky", {"ra": "RA", "dec": "DEC"}])
    def test_positions_are_no_labels(self, on):
        _, labels = match_labels(stars(ra=[10.0], dec=[80.0]), self.catalogue(), on)
        assert list(labels) == ["TEFF"]

    def test_two_rows_of_one_star(self):
        catalogue = self.catalogue(RA=[10.0, 10.0, 120.0], DEC=[80.0, 80.0, -45.0])
        with pytest.raises(ValueError, match="Several rows .* within 2 arcsec of 1 spectra"):
            match_labels(stars(ra=[10.0], dec=[80.0]), catalogue, "sky", ["teff"])

    def test_no_position(self):
        with pytest.raises(ValueError, match="There is no ra in meta"):
            match_labels(stars(obsid=[1]), self.catalogue(), "sky", ["teff"])
        unknown = stars(ra=[np.nan, 10.0], dec=[80.0, 80.0])
        with pytest.warns(UserWarning, match="1 of 2"):
            _, labels = match_labels(unknown, self.catalogue(), "sky", ["teff"])
        assert labels["teff"].tolist() == [4500.0]


@pytest.mark.parametrize(
    ("meta", "on", "sentence"),
    [
        ({"name": ["a"]}, "obsid", "meta of the spectra has no 'obsid'; there are name"),
        ({"obsid": [7]}, {"obsid": "KIC"}, "no column 'KIC'"),
        ({"obsid": [7]}, {"obsid": "OBSID", "a": "b"}, "give one key"),
        ({"obsid": [7.5]}, "obsid", "lose their last digits"),
    ],
)
def test_mistakes_get_a_sentence(meta, on, sentence):
    with pytest.raises(ValueError, match=sentence):
        match_labels(stars(**meta), CATALOGUE, on, {"teff": "TEFF"})
