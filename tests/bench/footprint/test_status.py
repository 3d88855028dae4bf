import os
import subprocess
import sys

import pytest

from bench.footprint.status import peak, resident

HOLDER = """\
import sys
held = bytearray(b"x") * int(sys.argv[1])
print("held", flush=True)
sys.stdin.readline()
del held
print("let go of", flush=True)
sys.stdin.readline()
"""


def test_memory_is_seen_while_it_is_held_and_its_peak_afterwards():
    nbytes = 100_000_000
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(nbytes)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as holder:
        holder.stdout.readline()
        held = resident(holder.pid)
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.readline()
        assert held - resident(holder.pid) == pytest.approx(100, abs=2)
        # Linux counts pages in batches for each processor.
        assert peak(holder.pid) == pytest.approx(held, abs=2)
        holder.stdin.close()


def test_a_process_that_has_gone_is_an_error():
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    with pytest.raises(OSError, match=str(gone.pid)):
        resident(gone.pid)
    assert resident(os.getpid()) > 0
