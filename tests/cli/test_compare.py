import json
import re
import sys
import textwrap

import numpy as np
import pandas as pd
import pytest

from skspec.cli import main
from skspec.datasets import load_spectra, save_spectra
from skspec.diagnostics import find_method

SMALL = ["--n-samples", "80", "--wavelength-range", "5100", "5250", "--seed", "1"]
FAST = ["--methods", "the_cannon", "ridge"]


class TestCompare:
    def test_embedded_end_to_end(self, tmp_path, capsys):
        assert main(["compare", *SMALL, *FAST, "--out", "there"]) == 0
        out, err = capsys.readouterr()
        assert "The Cannon" in out and "Cramér-Rao bound" in out and "by S/N" in out
        assert "Wrote results.json, predictions.csv, report.html in there" in out
        assert "[2/2] ridge: done in" in err
        data = json.loads((tmp_path / "there" / "results.json").read_text())
        assert data["complete"] and set(data["methods"]) == {"the_cannon", "ridge"}
        assert data["reference"] == "SyntheticGradients"
        assert data["methods"]["ridge"]["labels"]["teff"]["eta"] > 0
        frame = pd.read_csv(tmp_path / "there" / "predictions.csv")
        assert len(frame) == 2 * 16 and "teff_formal_std" in frame
        page = (tmp_path / "there" / "report.html").read_text("utf-8")
        assert "80 synthetic stars" in page and str(tmp_path) not in page

    def test_same_seed_same_predictions(self, tmp_path):
        for out in ("a", "b"):
            arguments = ["compare", *SMALL, "--methods", "ridge", "--no-report", "--out", out]
            assert main(arguments) == 0
        assert not (tmp_path / "a" / "report.html").exists()
        one, two = (tmp_path / out / "predictions.csv" for out in ("a", "b"))
        assert one.read_bytes() == two.read_bytes()

    def test_file_in_folds_by_star(self, library, tmp_path):
        arguments = [
            "compare",
            "--data",
            str(library),
            *FAST,
            "--cv",
            "3",
            "--labels",
            "teff",
            "feh",
        ]
        assert main([*arguments, "--label-range", "teff", "4600", "6900"]) == 0
        text = (tmp_path / "skspec_compare" / "results.json").read_text()
        data = json.loads(text)
        assert data["label_names"] == ["teff", "feh"] and data["n_splits"] == 3
        assert data["reference"] == "the_cannon"
        assert data["settings"]["label_range"] == ["teff 4600 to 6900"]
        assert str(library.parent) not in text and "library.npz" in text
        labels = np.array(data["stars"]["labels"])
        assert labels[:, 0].min() >= 4600 and labels[:, 0].max() <= 6900
        frame = pd.read_csv(tmp_path / "skspec_compare" / "predictions.csv")
        same_star = frame[frame["method"] == "ridge"].groupby("teff_true")["fold"].nunique()
        assert (same_star == 1).all()

    def test_a_failing_method_is_told_and_survived(self, capsys, monkeypatch):
        from skspec.forward import TheCannon

        def fit(self, X, y):
            raise RuntimeError("no luck")

        monkeypatch.setattr(TheCannon, "fit", fit)
        assert main(["compare", *SMALL, *FAST, "--no-report"]) == 0
        err = capsys.readouterr().err
        assert "skspec: the_cannon failed while fitting: RuntimeError: no luck" in err
        assert main(["compare", *SMALL, "--methods", "the_cannon", "--no-report"]) == 1

    def test_interrupt(self, monkeypatch, capsys):
        def compare(*args, **kwargs):
            raise KeyboardInterrupt

        monkeypatch.setattr("skspec.diagnostics.compare", compare)
        assert main(["compare", *SMALL]) == 130
        assert "interrupted; finished methods are in skspec_compare" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "nowhere.npz"], "there is no file nowhere.npz"),
        (["--methods", "magic"], "unknown method 'magic'; known: the_cannon, "),
        (["--labels", "mass"], "labels=['mass'] cannot be drawn"),
        (["--n-samples", "5"], "--n-samples 5 is too few stars"),
        (["--snr", "high"], "--snr high: give one positive number"),
        (["--snr", "-3"], "--snr -3: give one positive number"),
        (["--label-range", "mass", "1", "2"], "--label-range mass: no such label"),
        (["--label-range", "teff", "cool", "hot"], "two numbers are needed"),
        (["--wavelength-range", "100", "200"], "the line list covers"),
        (["--cv", "3", "--test-size", "0.5"], "not both"),
        (["--normalize"], "--normalize is for the spectra of a file (--data)"),
    ],
)
def test_what_the_user_can_mend(arguments, message, capsys):
    assert (
        main(
            ["compare", "--n-samples", "30", *arguments]
            if "--data" not in arguments
            else ["compare", *arguments]
        )
        == 2
    )
    err = capsys.readouterr().err
    complaint = [line for line in err.splitlines() if line.startswith("skspec: ")]
    assert len(complaint) == 1 and message in complaint[0]
    assert "Traceback" not in err


class TestFiles:
    def complaint(self, capsys, path, *arguments):
        assert main(["compare", "--data", str(path), "--methods", "ridge", *arguments]) == 2
        return capsys.readouterr().err.splitlines()[-1]

    def test_unknown_label(self, library, capsys):
        assert "has no labels ['mass']" in self.complaint(capsys, library, "--labels", "mass")

    def test_too_few_in_range(self, library, capsys):
        message = self.complaint(capsys, library, "--label-range", "teff", "5000", "5001")
        assert "labelled stars in range; at least 20 are needed" in message

    def test_normalize(self, library, tmp_path):
        """A slope of every star's own costs accuracy, unless divided out."""
        spectra, labels = load_spectra(library)
        slope = np.random.default_rng(0).uniform(-1, 1, (len(spectra), 1))
        tilt = np.exp(slope * np.linspace(-1, 1, spectra.shape[1]))
        tilted = spectra.replace(flux=spectra.flux * tilt, ivar=spectra.ivar / tilt**2)
        save_spectra(tmp_path / "tilted.npz", tilted, labels)
        error = {}
        for options in ([], ["--normalize"]):
            arguments = ["compare", "--data", "tilted.npz", "--methods", "ridge", "--no-report"]
            assert main([*arguments, *options]) == 0
            data = json.loads((tmp_path / "skspec_compare" / "results.json").read_text())
            assert data["settings"].get("normalized") == (True if options else None)
            error[bool(options)] = data["methods"]["ridge"]["labels"]["teff"]["mae"]
        assert error[True] < 0.8 * error[False]

    def test_no_labels(self, tmp_path, capsys):
        np.savez(tmp_path / "bare.npz", flux=np.ones((30, 50)))
        assert "bare.npz has no labelled stars" in self.complaint(capsys, tmp_path / "bare.npz")

    def test_no_archive(self, tmp_path, capsys):
        (tmp_path / "text.npz").write_text("hello")
        assert "is not an .npz file" in self.complaint(capsys, tmp_path / "text.npz")

    def test_synthetic_options(self, library, capsys):
        assert "for synthetic spectra" in self.complaint(capsys, library, "--snr", "50")


class TestOwnMethods:
    """``module:Class``, in a file of the current folder."""

    FILES = {
        "own_flat.py": """
            import numpy as np
            from skspec import LabelRegressor, MultivariateNormal

            class Flat(LabelRegressor):
                def __init__(self, random_state=None):
                    self.random_state = random_state

                def fit(self, X, y):
                    _, y = self._validate_fit(X, y)
                    self.mean_, self.std_ = y.mean(axis=0), y.std(axis=0)
                    return self

                def predict_dist(self, X):
                    shape = len(self._validate_predict(X)), len(self.mean_)
                    loc, scale = (np.broadcast_to(a, shape) for a in (self.mean_, self.std_))
                    return MultivariateNormal(loc, scale=scale, label_names=self.label_names_in_)

            class Needy(Flat):
                def __init__(self, width):
                    self.width = width
            """,
        "own_broken.py": "1 / 0",
    }

    @pytest.fixture(autouse=True)
    def files(self, tmp_path, monkeypatch):
        for name, text in self.FILES.items():
            (tmp_path / name).write_text(textwrap.dedent(text))
        monkeypatch.setattr("sys.path", [*sys.path])
        yield
        for name in self.FILES:
            sys.modules.pop(name.removesuffix(".py"), None)

    def test_takes_part(self, tmp_path, capsys):
        names = ["ridge", "own_flat:Flat", "skspec.forward:TheCannon"]
        assert main(["compare", *SMALL, "--methods", *names, "--seed", "3"]) == 0
        assert "[2/2] own_flat:Flat: done in" in capsys.readouterr().err
        data = json.loads((tmp_path / "skspec_compare" / "results.json").read_text())
        assert list(data["methods"]) == names
        assert data["methods"]["own_flat:Flat"]["title"] == "Flat"
        page = (tmp_path / "skspec_compare" / "report.html").read_text("utf-8")
        assert re.search(r"(?<!:)\bFlat\b", page)  # its title, and not only its name

    def test_settings_and_family(self):
        sys.path.insert(0, "")
        flat, cannon = map(find_method, ("own_flat:Flat", "skspec.forward:TheCannon"))
        assert (flat.family, cannon.family) == ("discriminative", "forward")
        assert flat.build(100, random_state=3, n_jobs=2).random_state == 3
        assert cannon.build(100, random_state=3, clean_training=4.0).clean_training == 4.0

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("own_nowhere:Flat", "cannot import 'own_nowhere': No module named 'own_nowhere'"),
            ("own_broken:Flat", "cannot import 'own_broken': division by zero"),
            (":Flat", "cannot import ''"),
            ("own_flat:Round", "the module 'own_flat' has no 'Round'"),
            ("own_flat:np", "np is no subclass of skspec.LabelRegressor"),
            ("sklearn.linear_model:Ridge", "Ridge is no subclass of skspec.LabelRegressor"),
            ("own_flat:Needy", "Needy needs width; give these a default"),
        ],
    )
    def test_a_wrong_one_gets_a_sentence(self, name, message, capsys):
        assert main(["compare", *SMALL, "--methods", name]) == 2
        err = capsys.readouterr().err
        assert err.startswith(f"skspec: {name}: ") and message in err
        assert len(err.splitlines()) == 1


def test_missing_matplotlib_names_the_install_line(monkeypatch, capsys):
    find = __import__("importlib.util").util.find_spec
    monkeypatch.setattr(
        "importlib.util.find_spec",
        lambda name, *a: None if name == "matplotlib" else find(name, *a),
    )
    assert main(["compare", *SMALL]) == 2
    assert 'pip install "skspec[all]"' in capsys.readouterr().err
