"""Coverage-guided fuzzing of the decoders (`make fuzz`): `fuzz.py SECONDS [TARGET …]`.

What is learned is kept in .fuzz/, per target. An input that breaks a decoder is left there as TARGET-crash-…:
put it, small, into tests/data/fuzz/TARGET/, where the tests find it.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
CORPUS = ROOT / ".fuzz"
sys.path.insert(0, str(ROOT / "tests/support"))


def fuzz_one(target: str, options: list[str]) -> None:
    """Does not return: libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["pathwatch"]):
        import fuzz_targets

    function = fuzz_targets.TARGETS[target]
    atheris.Setup([sys.argv[0], *options], function)
    atheris.Fuzz()


def fuzz_all(seconds: int, targets: list[str]) -> int:
    """Each target in a process of its own; how many broke."""
    import fuzz_targets

    broken = []
    for target in targets or list(fuzz_targets.TARGETS):
        folder = CORPUS / target
        folder.mkdir(parents=True, exist_ok=True)
        for number, seed in enumerate(fuzz_targets.seeds()[target]):
            (folder / f"seed-{number}").write_bytes(seed)
        regressions = ROOT / "tests/data/fuzz" / target
        options = [
            str(folder),
            *([str(regressions)] if regressions.is_dir() else []),
            f"-max_total_time={seconds}",
            "-timeout=20",
            "-rss_limit_mb=4096",
            "-print_final_stats=1",
            f"-artifact_prefix={CORPUS}/{target}-",
        ]
        print(f"== {target}, {seconds} s", flush=True)
        if subprocess.run([sys.executable, __file__, "--one", target, *options], check=False).returncode:
            broken.append(target)
    print(f"broken: {', '.join(broken)} (inputs in {CORPUS})" if broken else "all targets stood")
    return len(broken)


if __name__ == "__main__":
    if sys.argv[1] == "--one":
        fuzz_one(sys.argv[2], sys.argv[3:])
    sys.exit(fuzz_all(int(sys.argv[1]), sys.argv[2:]))
