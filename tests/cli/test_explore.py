import joblib
import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import Ridge

pytest.importorskip("bokeh")

from skspec.cli import main
from skspec.datasets import SpectraStore, load_spectra, make_spectra, save_spectra


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A model, spectra it knows, and a folder."""
    folder = tmp_path_factory.mktemp("explore")
    spectra, labels = make_spectra(60, n_pixels=80, snr=100, random_state=0)
    labels.iloc[:4] = np.nan
    save_spectra(folder / "stars.npz", spectra, labels)
    joblib.dump(PCA(4, random_state=0).fit(spectra), folder / "pca.joblib")
    joblib.dump(Ridge(), folder / "ridge.joblib")
    return folder


def explore(files, *arguments, model="pca.joblib"):
    return main(["explore", str(files / model), *map(str, arguments)])


def test_static_page(files, tmp_path, capsys):
    page = tmp_path / "page.html"
    assert explore(files, "--data", files / "stars.npz", "--static", page) == 0
    assert f"Wrote {page}" in capsys.readouterr().out
    assert "PCA · stars.npz · skspec" in page.read_text("utf-8")


def test_latents_are_kept(files, tmp_path, capsys, monkeypatch):
    kept, page = tmp_path / "latents.npy", tmp_path / "page.html"
    arguments = ("--data", files / "stars.npz", "--latents", kept, "--static", page)
    assert explore(files, *arguments) == 0
    latents = np.load(kept)
    assert latents.shape == (60, 4)  # also stars without labels
    monkeypatch.setattr("skspec.explore.LatentSpace.encode", None)  # not needed again
    assert explore(files, *arguments) == 0
    np.save(kept, latents[::-1])
    assert explore(files, *arguments) == 2
    assert "not those of this model" in capsys.readouterr().err


def test_the_address_is_said(files, capsys, monkeypatch):
    seen = {}

    def serve(space, **options):
        seen.update(options, n=len(space))
        options["announce"]("http://there/")

    monkeypatch.setattr("skspec.explore._server.serve", serve)
    assert explore(files, "--port", "0", "--no-browser") == 0
    out, err = capsys.readouterr()
    assert "http://there/" in out and "warning" not in err
    assert seen["host"] == "127.0.0.1" and seen["show"] is False and seen["n"] == 0
    assert explore(files, "--host", "0.0.0.0", "--no-browser") == 0
    assert "everybody on the network can use this page" in capsys.readouterr().err


def test_a_store(files, tmp_path, capsys):
    pytest.importorskip("zarr")
    spectra, labels = load_spectra(files / "stars.npz", labelled_only=False)
    SpectraStore.write(tmp_path / "stars", spectra, labels)
    page = tmp_path / "page.html"
    assert explore(files, "--data", tmp_path / "stars", "--static", page) == 0
    text = page.read_text("utf-8")
    assert "PCA · stars · skspec" in text and "teff" in text
    assert explore(files, "--data", files) == 2
    assert "Traceback" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["nothing.joblib"], "there is no file"),
        (["stars.npz"], "no model written with joblib.dump"),
        (["ridge.joblib"], "Ridge has not both transform and inverse_transform"),
        (["pca.joblib", "--latents", "x.npy"], "give --data too"),
        (["pca.joblib", "--data", "pca.joblib"], "not an .npz file"),
        (["pca.joblib", "--static", "nowhere/x.html"], "No such file"),
    ],
)
def test_bad_input(files, capsys, monkeypatch, arguments, message):
    monkeypatch.chdir(files)
    assert main(["explore", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and "Traceback" not in error


@pytest.mark.parametrize("arguments", [["--port", "99999"], ["--max-points", "0"]])
def test_numbers_out_of_range(files, arguments):
    with pytest.raises(SystemExit):
        explore(files, *arguments)


def test_a_taken_port(files, capsys):
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert explore(files, "--port", taken.getsockname()[1], "--no-browser") == 2
    assert "--port 0" in capsys.readouterr().err


def test_without_bokeh(files, capsys, monkeypatch):
    monkeypatch.setattr("skspec.cli.explore.has_package", lambda name: False)
    assert explore(files) == 2
    assert "skspec[explore]" in capsys.readouterr().err
