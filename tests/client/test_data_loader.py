"""PyTorch's DataLoader workers, forked or spawned, before the stream is made and after, disturb nobody."""

import subprocess
import sys

import pytest

SCRIPT = """
import logging, sys, threading
import numpy as np
from torch.utils.data import DataLoader, Dataset
from pathwatch.client import RoutingStream

WEIGHTS = np.full((2, 2, 4), 0.25, np.float32)


class Samples(Dataset):
    stream = None  # what a forked worker inherits, and may well use

    def __len__(self):
        return 40

    def __getitem__(self, index):
        if self.stream is not None:
            self.stream.observe(step=1000 + index, group="worker", sample_ids=[1, 2], weights=WEIGHTS)
            self.stream.watermark(1000 + index)
        return index


def main(address, method, when):
    logging.basicConfig()
    threading.excepthook = lambda arguments: print("SURFACED", arguments, file=sys.stderr)
    samples = Samples()
    loader = DataLoader(samples, batch_size=2, num_workers=2, multiprocessing_context=method)
    batches = iter(loader) if when == "before" else None
    stream = RoutingStream(address, run="run", watch=True)
    if when == "after":
        if method == "fork":  # what is spawned gets a pickled copy, of which a stream cannot be part
            samples.stream = stream
        batches = iter(loader)
    seen = []
    for step, batch in enumerate(batches):
        seen += batch.tolist()
        stream.observe(step=step, group="math", sample_ids=[1, 2], weights=WEIGHTS)
        stream.watermark(step)
    del batches  # the workers end
    stream.observe(step=20, group="math", sample_ids=[1, 2], weights=WEIGHTS)
    assert stream.flush(60)
    assert stream.stats.reconnects == 0 and stream.stats.connected
    assert sorted(seen) == list(range(40))


if __name__ == "__main__":
    main(*sys.argv[1:])
"""


@pytest.mark.slow
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.robustness)])
@pytest.mark.parametrize("when", ["before", "after"])
def test_workers_disturb_nobody(sidecar, tmp_path, method, when):
    script = tmp_path / "train.py"
    script.write_text(SCRIPT)
    command = [sys.executable, "-W", "error", str(script), sidecar.address, method, when]
    done = subprocess.run(command, capture_output=True, text=True, timeout=240)
    assert (done.returncode, done.stderr) == (0, "")
    assert [(batch.group, batch.step) for batch in sidecar.received("batch")] == [
        ("math", step) for step in range(21)
    ]
    assert len(sidecar.hellos) == 1
