"""Published packages, each in its own environment, driven over a pipe.

    python -m benchmarks.peers FOLDER [names]

makes the environments that ``peers.txt`` names. `Peer` starts ``peer_worker.py`` with the Python of
one of them; imports and reading of data are over before any clock starts.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.common import Seconds

HERE = Path(__file__).resolve().parent
DEFAULT_FOLDER = Path.home() / ".cache" / "skspec-peers"


def known_peers():
    """{name: (python, packages)} of peers.txt."""
    lines = [line for line in (HERE / "peers.txt").read_text().splitlines() if line.strip()]
    parts = [line.split(":", 2) for line in lines if not line.startswith("#")]
    return {name: (python.strip(), packages.split()) for name, python, packages in parts}


def interpreters(folder=None):
    """{name: Python} of the environments found in `folder` (or SKSPEC_PEERS, or DEFAULT_FOLDER)."""
    folder = Path(folder or os.environ.get("SKSPEC_PEERS", DEFAULT_FOLDER))
    found = {name: folder / name / "bin" / "python" for name in known_peers()}
    return {name: str(python) for name, python in found.items() if python.exists()}


def how_to_install():
    return (
        "No published packages found. To compare with them: python -m benchmarks.peers FOLDER, then "
        "set SKSPEC_PEERS=FOLDER (benchmarks/peers.txt says what is installed)."
    )


class Peer:
    """A peer in its own process, which waits on its standard input between calls.

    Parameters
    ----------
    name : str
        Key of peers.txt.
    python : str
        Interpreter of its environment.
    data : path
        ``.npz`` with ``x, xi, y`` (training flux, ivar, labels), ``t, ti`` (test), ``wave``.
    n_threads : int
        Of whatever linear algebra the peer links.
    """

    def __init__(self, name, python, data, n_threads=1):
        threads = {f"{lib}_NUM_THREADS": str(n_threads) for lib in ("OMP", "OPENBLAS", "MKL")}
        self.process = subprocess.Popen(
            [python, str(HERE / "peer_worker.py"), name, str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env={**os.environ, **threads, "PYTHONPATH": ""},
        )
        self._answer()

    def _answer(self):
        line = self.process.stdout.readline()
        answer = json.loads(line) if line else {"error": "the worker died"}
        if "error" in answer:
            raise RuntimeError(answer["error"])
        return answer

    def __call__(self, job, **options):
        """(Seconds, labels or None) of "train" or "predict", as the worker measured them."""
        self.process.stdin.write(json.dumps({"job": job, **options}) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        labels = answer.get("labels")
        return Seconds(answer["wall"], answer["cpu"]), None if labels is None else np.array(labels)

    def close(self):
        self.process.stdin.close()
        self.process.wait()


def main():
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    for name, (python, packages) in known_peers().items():
        if names and name not in names:
            continue
        try:
            subprocess.run([python, "-m", "venv", str(folder / name)], check=True)
            pip = [str(folder / name / "bin" / "python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, *packages], check=True)
            print(f"{name}: {folder / name}")
        except (OSError, subprocess.CalledProcessError) as error:
            print(f"{name}: not installed ({error})")


if __name__ == "__main__":
    main()
