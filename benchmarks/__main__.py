"""Run comparison scripts and print their tables.

python -m benchmarks                            all of them (two hours on two cores)
python -m benchmarks slam_speed cannon_speed    some
python -m benchmarks slam_speed --C 10          one, with its own options (--help)
python -m benchmarks --quick                    small sizes: does everything run?
"""

import os

# before any BLAS is loaded: threads of several workers only fight
for _library in ("OMP", "OPENBLAS", "MKL"):
    os.environ.setdefault(f"{_library}_NUM_THREADS", "1")

import sys  # noqa: E402
from importlib import import_module  # noqa: E402

QUICK = {
    "slam_speed": "--n 200 --pixels 256 --subset 16 --exact 4 --repeats 1 --grid-pixels 64 "
    "--grid-subset 2 --stars 4",
    "cannon_speed": "--n 200 --repeats 1",
    "spectral_gp": "--n 200 --parts time",
    "accuracy": "--n 200 --parts emulator giants",
    "velocity": "--n 100 --n-train 200 --stars 16 --scipy 2 --repeats 1",
    "harpsn": "--size quick",
    "networks": "--networks strided --epochs 2 --n 200 --pixels 300 --time-epochs 2 --repeats 1",
    "calibration": "--n-train 200 --n-test 200 --pixels 100 --epochs 5 --methods ridge strided",
    "latent": "--seeds 1 --n 300 --epochs 3 --betas 1 10 --survey-epochs 3 --stars 1000 --pixels 512 "
    "--out results/latent-quick --parts factors surveys memory",
    "transfer": "--seeds 1 --n 300 --train 200 --test 50 --steps 100 --out results/transfer-quick",
    "audit": "--seeds 1 --n 100 --methods quadratic",
    "augmentation": "--n 50 --repeats 1",
    "homogenize": "--seeds 1",
    "synthetic_gap": "--n 300 --seeds 1 --kinds both",
    "reading": "--files 60 --theirs 3 --repeats 1",
    "gpu": "--n 200 --pixels 500 --hidden 50 --batch 128 --epochs 5 --repeats 1",
}


def main():
    names = []
    options = sys.argv[1:]
    while options and not options[0].startswith("-"):
        names.append(options.pop(0))
    if "-h" in options and not names or "--help" in options and not names:
        print(__doc__)
        return 0
    unknown = [name for name in names if name not in QUICK]
    if unknown:
        print(f"no benchmark {unknown[0]!r}; there are {', '.join(QUICK)}", file=sys.stderr)
        return 2
    quick = "--quick" in options
    options = [option for option in options if option != "--quick"]
    if options and len(names) != 1:
        print("options go with one benchmark only", file=sys.stderr)
        return 2
    for name in names or QUICK:
        print(f"\n{name}\n{'-' * len(name)}", flush=True)
        chosen = [*(QUICK[name].split() if quick else []), *options]
        import_module(f"benchmarks.{name}").main(chosen)
    return 0


if __name__ == "__main__":
    sys.exit(main())
