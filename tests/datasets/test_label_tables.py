"""Catalogues: every format gives the same labels; identifiers keep all their digits."""

import gzip

import numpy as np
import pandas as pd
import pytest
from pandas.testing import assert_frame_equal

from skspec.datasets import load_spectra, read_labels, save_spectra
from skspec.spectra import Spectra

IDS = [4611686018427387905, 4611686018427387907, 12]  # of which a float cannot hold two
TEFF, FEH = [5777.0, np.nan, 4500.5], [0.0, -1.25, np.nan]
E_TEFF = [50.0, 60.0, np.nan]
NAMES = {"teff": "TEFF", "feh": "FE_H"}


def columns(missing=-9999.0):
    """As a survey writes them."""
    given = {"TEFF": TEFF, "FE_H": FEH, "E_TEFF": E_TEFF}
    table = {name: np.nan_to_num(values, nan=missing) for name, values in given.items()}
    return (
        {"SOURCE_ID": np.array(IDS)} | table | {"APOGEE_ID": np.array([" 2M01 ", "2M02", "2M03  "])}
    )


def astropy_table(masked=False):
    table = pytest.importorskip("astropy.table")
    out = table.Table(columns(), masked=masked)
    if masked:
        for name in ("TEFF", "FE_H", "E_TEFF"):
            out[name].mask = out[name] == -9999
    return out


def write(path):
    """The catalogue in a format of this suffix."""
    name = path.name
    frame = pd.DataFrame(columns())
    if name.endswith(".npz"):
        np.savez(path, **columns())
    elif name.endswith(".parquet"):
        pytest.importorskip("pyarrow")
        frame.to_parquet(path)
    elif name.endswith((".csv", ".csv.gz")):
        frame.to_csv(path, index=False)
    elif name.endswith(".tsv"):
        frame.to_csv(path, index=False, sep="\t")
    else:
        kinds = {"fits": "fits", "gz": "fits", "ecsv": "ascii.ecsv", "vot": "votable"}
        kind = kinds.get(name.rpartition(".")[2], "ascii.commented_header")
        astropy_table().write(path, format=kind)
    return path


FORMATS = ["csv", "csv.gz", "tsv", "npz", "parquet", "fits", "fits.gz", "ecsv", "vot", "dat"]


@pytest.mark.parametrize("suffix", FORMATS)
def test_every_format(tmp_path, suffix):
    path = write(tmp_path / f"catalogue.{suffix}")
    labels, errors = read_labels(path, NAMES, {"teff": "E_TEFF"}, missing=-9999, id="SOURCE_ID")
    index = pd.Index(IDS, name="SOURCE_ID")
    assert_frame_equal(labels, pd.DataFrame({"teff": TEFF, "feh": FEH}, index=index))
    assert_frame_equal(errors, pd.DataFrame({"teff": E_TEFF, "feh": [np.nan] * 3}, index=index))
    names = read_labels(path, ["teff"], missing=-9999, id="apogee_id")
    assert names.index.tolist() == ["2M01", "2M02", "2M03"] and list(names) == ["teff"]
    with pytest.raises(ValueError, match=r"-9999 \(row 1\).*missing=-9999"):
        read_labels(path, NAMES)


def polars_frame():
    return pytest.importorskip("polars").DataFrame(columns())


def quantities():
    table = pytest.importorskip("astropy.table")
    return table.QTable(astropy_table(), units={"TEFF": "K", "E_TEFF": "K"})


@pytest.mark.parametrize(
    "form",
    [columns, astropy_table, polars_frame, quantities, lambda: pd.DataFrame(columns())],
)
def test_every_table(form):
    labels = read_labels(form(), NAMES, missing=-9999, id="SOURCE_ID")
    expected = pd.DataFrame({"teff": TEFF, "feh": FEH}, index=pd.Index(IDS, name="SOURCE_ID"))
    assert_frame_equal(labels, expected)


def test_masked_and_nullable_tables():
    expected = pd.DataFrame({"teff": TEFF, "feh": FEH})
    assert_frame_equal(read_labels(astropy_table(masked=True), NAMES), expected)
    nullable = pd.DataFrame(columns()).replace(-9999.0, np.nan).convert_dtypes()
    assert_frame_equal(read_labels(nullable, NAMES), expected)
    record = pd.DataFrame(columns()).to_records(index=False)
    assert_frame_equal(read_labels(record, NAMES, missing=[-9999]), expected)


def test_all_columns_of_numbers_by_default():
    labels = read_labels(columns(0.0), id="SOURCE_ID")
    assert list(labels) == ["TEFF", "FE_H", "E_TEFF"]
    labels, errors = read_labels({"teff": [1.0], "err": [2.0]}, errors={"teff": "err"})
    assert list(labels) == list(errors) == ["teff"] and errors.loc[0, "teff"] == 2.0


def test_units_are_converted():
    units = pytest.importorskip("astropy.units")
    table = pytest.importorskip("astropy.table").QTable(
        {
            "teff": [5500.0, 6000] * units.K,
            "rv": [12000.0, -500] * units.m / units.s,
            "logg": [4.4, 2.0] * units.dex(units.cm / units.s**2),
        }
    )
    labels = read_labels(table)
    np.testing.assert_allclose(labels, [[5500, 12, 4.4], [6000, -0.5, 2.0]])
    plain = pytest.importorskip("astropy.table").Table(table)
    np.testing.assert_allclose(read_labels(plain, ["rv"])["rv"], [12, -0.5])


def test_errors_have_no_zero_point():
    units = pytest.importorskip("astropy.units")
    table = pytest.importorskip("astropy.table").QTable(
        {
            "teff": [5226.85, 5726.85] * units.deg_C,
            "e_teff": [50.0, 100.0] * units.deg_C,
            "rv": [1000.0, 2000.0] * units.m / units.s,
            "e_rv": [100.0, 200.0] * units.m / units.s,
        }
    )
    labels, errors = read_labels(table, ["teff", "rv"], ["e_teff", "e_rv"])
    np.testing.assert_allclose(labels, [[5500, 1], [6000, 2]])
    np.testing.assert_allclose(errors, [[50, 0.1], [100, 0.2]])


def test_negative_errors():
    table = {"teff": [5000.0, 5100.0, 5200.0], "e": [50.0, -1.0, 0.0]}
    with pytest.raises(
        ValueError, match="errors of teff are negative .-1 in row 1.: give missing=-1"
    ):
        read_labels(table, ["teff"], ["e"])
    _, errors = read_labels(table, ["teff"], ["e"], missing=-1)
    np.testing.assert_array_equal(errors["teff"], [50, np.nan, 0])


@pytest.mark.parametrize("mark", [",", ";", "\t", "|"])
def test_between_columns(tmp_path, mark):
    path = tmp_path / "catalogue.csv"
    path.write_text("id,teff,logg\n1,5000.5,4.5\n2,,4.0\n".replace(",", mark))
    labels = read_labels(path, id="id")
    np.testing.assert_array_equal(labels, [[5000.5, 4.5], [np.nan, 4.0]])
    assert labels.index.tolist() == [1, 2]


def test_entries_of_vectors(tmp_path):
    table = pytest.importorskip("astropy.table").Table({"FPARAM": [[5000.0, 2.5], [4000.0, 1.0]]})
    table.write(tmp_path / "allStar.fits")
    for source in (table, tmp_path / "allStar.fits"):
        labels = read_labels(source, {"teff": ("FPARAM", 0), "logg": ("FPARAM", 1)})
        assert labels.to_numpy().tolist() == [[5000.0, 2.5], [4000.0, 1.0]]
        with pytest.raises(ValueError, match=r"FPARAM has shape.*\('FPARAM', 0\)"):
            read_labels(source, ["FPARAM"])


def test_integers_with_gaps_keep_their_digits(tmp_path):
    path = tmp_path / "gaps.csv"
    path.write_text(f"source_id, teff\n{IDS[0]}, 5000\n,5500\n{IDS[1]},N/A\n")
    labels = read_labels(path, ["teff"], id="source_id")
    assert labels.index.tolist() == [str(IDS[0]), "", str(IDS[1])]
    np.testing.assert_array_equal(labels["teff"], [5000, 5500, np.nan])
    lost = pd.read_csv(path, skipinitialspace=True)
    with pytest.raises(ValueError, match="lose their last digits"):
        read_labels(lost, ["teff"], id="source_id")
    gaps = pd.DataFrame({"id": pd.array([IDS[0], None], dtype="Int64"), "teff": [1.0, 2.0]})
    assert read_labels(gaps, ["teff"], id="id").index.tolist() == [str(IDS[0]), ""]
    polars = pytest.importorskip("polars").DataFrame({"id": [IDS[0], None], "teff": [1.0, 2.0]})
    assert read_labels(polars, ["teff"], id="id").index.tolist() == [str(IDS[0]), ""]
    masked = {"id": np.ma.array(IDS, mask=[0, 1, 0]), "teff": [1.0, 2.0, 3.0]}
    assert read_labels(masked, ["teff"], id="id").index.tolist() == [str(IDS[0]), "", "12"]


def test_bytes_and_words_for_missing():
    table = {"name": np.array([b"HD 1 ", b"HD 2"]), "teff": np.array(["5000", " -- "])}
    labels = read_labels(table, ["teff"], missing="--", id="name")
    assert labels.index.tolist() == ["HD 1", "HD 2"]
    np.testing.assert_array_equal(labels["teff"], [5000, np.nan])
    with pytest.raises(ValueError, match=r"The labels \(teff\) must hold real numbers"):
        read_labels(table, ["teff"])


def test_labels_of_a_file_of_spectra(tmp_path):
    spectra = Spectra(np.ones((2, 5)), meta={"star_id": np.array(["a", "b"])})
    labels = pd.DataFrame({"teff": [5000.0, np.nan], "feh": [0.1, np.nan]})
    path = save_spectra(tmp_path / "stars.npz", spectra, labels)
    found = read_labels(path, ["teff", "feh"], id="star_id")
    assert_frame_equal(found.reset_index(drop=True), load_spectra(path, labelled_only=False)[1])


def test_the_table_that_has_the_columns(tmp_path):
    fits = pytest.importorskip("astropy.io.fits")
    first = fits.BinTableHDU.from_columns([fits.Column("OTHER", "J", array=[1])])
    second = fits.BinTableHDU.from_columns(
        [
            fits.Column("TEFF", "J", array=[-1, 5000], null=-1),
            fits.Column("OTHER", "J", array=[1, 2]),
        ]
    )
    fits.HDUList([fits.PrimaryHDU(), first, second]).writeto(tmp_path / "two.fits")
    labels = read_labels(tmp_path / "two.fits", ["teff"])
    np.testing.assert_array_equal(labels["teff"], [np.nan, 5000])


@pytest.mark.parametrize("suffix", ["csv", "csv.gz", "npz", "parquet", "fits", "fits.gz", "vot"])
@pytest.mark.parametrize("share", [0.0, 0.3, 0.9])
def test_damaged_files(tmp_path, suffix, share):
    path = write(tmp_path / f"catalogue.{suffix}")
    whole = path.read_bytes()
    path.write_bytes(whole[: int(share * len(whole))])
    if suffix == "csv" and share:
        labels = read_labels(path, NAMES, missing=-9999)  # a shorter text is a text
        assert len(labels) < 3 or labels.isna().any(axis=None)
        return
    with pytest.raises(ValueError, match=r"catalogue\..*"):
        read_labels(path, NAMES, missing=-9999)


def test_what_is_no_catalogue(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file"):
        read_labels(tmp_path / "none.csv")
    (tmp_path / "noise.csv").write_bytes(b"\x00\x01\x02" * 100)
    with pytest.raises(ValueError, match="neither text nor FITS"):
        read_labels(tmp_path / "noise.csv")
    (tmp_path / "noise.csv").write_bytes(gzip.compress(b""))
    with pytest.raises(ValueError, match="it is empty"):
        read_labels(tmp_path / "noise.csv")
    with pytest.raises(ValueError, match="A table with named columns is needed"):
        read_labels(np.ones((3, 2)))


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"labels": ["teff", "logg"]}, "no column 'logg'"),
        ({"labels": ["tefff"]}, "no column 'tefff'; there are .*TEFF"),
        ({"labels": ["teff"], "errors": {"feh": "E_TEFF"}}, "errors are given of feh"),
        ({"labels": ["teff", "fe_h"], "errors": ["E_TEFF"]}, "1 columns of errors for the labels"),
        ({"labels": ["teff"], "id": "kic"}, "no column 'kic'"),
        ({"labels": ["APOGEE_ID"]}, "must hold real numbers"),
    ],
)
def test_mistakes_get_a_sentence(tmp_path, options, sentence):
    for source in (columns(), write(tmp_path / "catalogue.csv")):
        with pytest.raises(ValueError, match=sentence):
            read_labels(source, missing=-9999, **options)
