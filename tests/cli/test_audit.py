from skspec.cli import main


def test_audit(library, monkeypatch, capsys):
    monkeypatch.setattr("skspec.plotting.write_audit_page", lambda audit, path: path)
    arguments = ["audit", "--data", str(library), "--labels", "teff", "feh"]
    assert main([*arguments, "--decorrelated", str(library), "--out", "audit.html"]) == 0
    out = capsys.readouterr().out
    assert out.startswith("audit of teff, feh on 100 stars: ")
    assert "Leakage between labels" in out and "Wrote audit.html" in out
    for more, message in (
        (["--method", "magic"], "unknown method 'magic'"),
        (["--label-range", "teff", "a", "b"], "two numbers are needed"),
        (["--decorrelated", "nowhere.npz"], "nowhere.npz"),
        (["--out", "nowhere/audit.html"], "there is no folder nowhere"),
    ):
        assert main([*arguments, *more]) == 2
        assert message in capsys.readouterr().err
