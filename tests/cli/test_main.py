import subprocess
import sys

from skspec import __version__

SMALL = ["--n-samples", "80", "--wavelength-range", "5100", "5250", "--seed", "1"]


class TestProcess:
    def run(self, *arguments):
        return subprocess.run(
            [sys.executable, "-m", "skspec", *arguments],
            capture_output=True,
            text=True,
            check=False,
        )

    def test_version(self):
        assert self.run("--version").stdout.strip() == f"skspec {__version__}"

    def test_help_without_a_command(self):
        assert "compare" in self.run().stdout

    def test_help_is_light(self):
        code = (
            "import sys\nfrom skspec.cli import main\n"
            "try: main(['compare', '--help'])\nexcept SystemExit: pass\n"
            "sys.exit(any(m in sys.modules for m in ('sklearn', 'pandas', 'matplotlib', 'rich')))"
        )
        assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

    def test_help_names_all_methods(self):
        from skspec.cli._input import METHODS
        from skspec.diagnostics import available_methods

        assert METHODS == tuple(available_methods())
        for command in ("compare", "audit"):
            words = self.run(command, "--help").stdout.replace(",", " ").split()
            assert {*METHODS, "MODULE:CLASS"} <= set(words)

    def test_end_to_end(self, tmp_path):
        out = self.run("compare", *SMALL, "--methods", "ridge", "--out", "out")
        assert out.returncode == 0, out.stderr
        assert out.stderr.splitlines()[0] == "making spectra ..."
        assert {path.name for path in (tmp_path / "out").iterdir()} == {
            "results.json",
            "predictions.csv",
            "report.html",
        }

    def test_bad_argument_exits_with_2(self):
        assert self.run("compare", "--cv", "1").returncode == 2
        assert self.run("compare", "--data", "nowhere.npz").returncode == 2
