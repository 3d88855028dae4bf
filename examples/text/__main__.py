"""Records runs of a byte-level mixture-of-experts language model on real text found on this machine.

    python examples/text mixed --seed 3 --out traces

Writes `text_mixed_s3.npz` (trace v1) and `labels/text_mixed_s3.labels.npz` (validation loss, for judging).
The probe has 128 training samples per group; 32 of them are deferred: trained on only in the last tenth.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from text.groups import SCENARIOS, make_groups
from text.train import train


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("scenario", choices=SCENARIOS, help="which groups repeat a small set of text")
    parser.add_argument(
        "--seed", type=int, default=0, help="chooses kinds of text, files and initial weights"
    )
    parser.add_argument("--out", type=Path, default=Path("traces"), help="folder of the trace")
    parser.add_argument("--no-deferred", action="store_true", help="keep no samples back")
    parser.add_argument("--threads", type=int, default=1, help="another number gives another run")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_float32_matmul_precision("medium")
    name = f"text_{args.scenario}_s{args.seed}" + ("_nodeferred" if args.no_deferred else "")
    try:
        groups = make_groups(args.scenario, args.seed)
    except ValueError as error:
        sys.exit(str(error))
    points = train(name, groups, args.seed, args.out, deferred=not args.no_deferred)
    for index, group in enumerate(groups):
        losses_T = [point.truth["val_loss"][index] for point in points]
        least, last = min(losses_T), losses_T[-1]
        step = points[losses_T.index(least)].step
        print(
            f"{name}  {group.name} ({len(group.text.train)} sequences): validation loss {least:.3f} "
            f"at step {step}, {last:.3f} at the end (+{last / least - 1:.1%})"
        )


if __name__ == "__main__":
    main()
