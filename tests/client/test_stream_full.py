"""A stream whose buffer is full."""

import logging

import numpy as np

STEP_BYTES = 50_000


def fill(stream, steps):
    """Each step: two batches of 5 samples, together some 50 kB, and a watermark."""
    weights = np.full((5, 2, 600), 1 / 600, np.float32)
    for step in steps:
        for group in ("math", "code"):
            stream.observe(step=step, group=group, sample_ids=np.arange(5), weights=weights)
        stream.watermark(step)


def test_oldest_whole_steps_go_and_are_counted(sidecar, streams, eventually, caplog):
    sidecar.stop()
    stream = streams(sidecar.address, buffer_bytes=10 * STEP_BYTES + 10 * 5_000)
    fill(stream, range(30))
    stats = stream.stats
    assert stats.buffered_bytes <= 10 * STEP_BYTES + 10 * 5_000
    assert 15 <= stats.dropped_steps < 30
    assert stats.dropped_observations == 10 * stats.dropped_steps
    full = [r for r in caplog.records if r.levelno >= logging.WARNING and "buffer is full" in r.getMessage()]
    assert len(full) == 1

    sidecar.start()
    assert stream.flush(60)
    kept = list(range(stats.dropped_steps, 30))
    assert [(b.step, b.group) for b in sidecar.received("batch")] == [
        (step, group) for step in kept for group in ("math", "code")
    ]
    assert [w.step for w in sidecar.received("watermark")] == kept
    assert sidecar.sequences() == list(range(1, 3 * len(kept) + 1))
    assert stream.stats.dropped_steps == stats.dropped_steps


def test_a_server_that_never_acknowledges_does_not_fill_memory(sidecar, streams, eventually):
    sidecar.acks = False
    stream = streams(sidecar.address, buffer_bytes=4 * STEP_BYTES)
    for first in range(0, 40, 4):
        fill(stream, range(first, first + 4))
        assert stream.stats.buffered_bytes <= 4 * STEP_BYTES
    eventually(lambda: any(m.watermark.step == 39 for m in sidecar.messages))
    assert stream.stats.dropped_steps >= 35
    sidecar.stop()
    sidecar.acks = True
    sidecar.start()
    assert stream.flush(60)
    sequences = sidecar.sequences()
    payloads = {m.sequence: m.SerializeToString(deterministic=True) for m in sidecar.messages}
    assert all(payloads[m.sequence] == m.SerializeToString(deterministic=True) for m in sidecar.messages)
    assert sequences[-1] == max(sequences)
