"""Making a probe of tokens of different lengths, or of a dataset."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from pathwatch.integrations.deferred import DeferredSampler
from pathwatch.integrations.observing import Probe, ProbeGroup
from pathwatch.integrations.observing.probe_batches import shard

CPU = torch.device("cpu")


def test_sequences_of_different_lengths_are_filled_up() -> None:
    group = ProbeGroup.of([[5, 6, 7], torch.tensor([8])], [10, 11])
    assert group.inputs["input_ids"].tolist() == [[5, 6, 7], [8, 0, 0]]
    assert group.inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]
    assert group.attention_mask is not None
    assert group.labels is not None
    assert group.labels.tolist() == [[5, 6, 7], [8, -100, -100]]
    assert group.sample_ids.tolist() == [10, 11]


def test_models_without_a_mask_are_given_none_but_padding_is_not_counted() -> None:
    group = ProbeGroup.of([[5, 6], [8]], [0, 1], name="tokens", mask_name=None)
    assert set(group.inputs) == {"tokens"}
    assert group.attention_mask is not None
    whole = ProbeGroup.of([[5, 6], [8, 9]], [0, 1])
    assert set(whole.inputs) == {"input_ids"}
    assert whole.attention_mask is None


def test_own_labels_and_masks_are_kept() -> None:
    group = ProbeGroup.of(
        [[0, 5, 6], [7, 8]], [0, 1], labels=[[-100, -100, 6], [7, 8]], masks=[[0, 1, 1], [1, 1]]
    )
    assert group.labels is not None
    assert group.labels.tolist() == [[-100, -100, 6], [7, 8, -100]]
    assert group.inputs["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 0]]


@pytest.mark.parametrize(
    ("sequences", "more", "message"),
    [
        ([[1, 2], []], {}, "sample 1 has shape"),
        ([[[1, 2]]], {}, "sample 0 has shape"),
        ([[1, 2]], {"labels": [[1, 2, 3]]}, "as many and as long"),
        ([[1, 2]], {"masks": [[1, 1], [1, 1]]}, "as many and as long"),
    ],
)
def test_what_does_not_fit_together_is_refused(sequences: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ProbeGroup.of(sequences, range(len(sequences)), **more)


def names(index: int) -> str | None:
    return ("math", "code", None)[index % 3]


def test_a_dataset_makes_a_probe_of_some_samples_of_each_group() -> None:
    dataset = [torch.arange(i, i + 4) for i in range(300)]
    probe = Probe.from_dataset(dataset, names, per_group=20, interval=7)
    assert probe.interval == 7
    assert set(probe.groups) == {"math", "code"}
    for name, group in probe.groups.items():
        ids = group.sample_ids.tolist()
        assert len(ids) == 20
        assert {names(i) for i in ids} == {name}
        assert group.inputs["input_ids"].tolist() == [dataset[i].tolist() for i in ids]
        assert group.labels is not None
        assert torch.equal(group.labels, group.inputs["input_ids"])
    again = Probe.from_dataset(dataset, [names(i) for i in range(300)], per_group=20)
    other = Probe.from_dataset(dataset, names, per_group=20, seed=1)
    assert torch.equal(again.groups["math"].sample_ids, probe.groups["math"].sample_ids)
    assert not torch.equal(other.groups["math"].sample_ids, probe.groups["math"].sample_ids)
    assert len(Probe.from_dataset(dataset, names, per_group=1000).groups["math"].sample_ids) == 100


def test_items_as_trainers_have_them_are_read() -> None:
    item = {"input_ids": [0, 4, 5], "attention_mask": [0, 1, 1], "text": "four five"}
    labelled = {"input_ids": [1, 2, 3], "labels": [-100, 2, 3], "attention_mask": [1, 1, 1]}
    group = Probe.from_dataset([item, labelled], ["a", "a"]).groups["a"]
    assert group.labels is not None
    assert group.labels.tolist() == [[-100, 4, 5], [-100, 2, 3]]
    assert group.inputs["attention_mask"].tolist() == [[0, 1, 1], [1, 1, 1]]
    for wrong in ({"text": "x"}, "x", [[1, 2]], {"input_ids": [1, 2], "labels": [1]}):
        with pytest.raises(ValueError, match="sample 0 of the dataset"):
            Probe.from_dataset([wrong], ["a"])
    with pytest.raises(ValueError, match="give groups="):
        Probe.from_dataset([item])


def test_deferred_samples_are_in_the_probe_among_others() -> None:
    dataset = [[i, i] for i in range(300)]
    sampler = DeferredSampler(dataset, names, batch_size=10, per_group=4)
    probe = Probe.from_dataset(dataset, deferred=sampler, per_group=12)
    for name, group in probe.groups.items():
        ids = group.sample_ids.tolist()
        assert len(ids) == 12
        assert set(sampler.deferred[name].tolist()) < set(ids)
    assert probe.visits is sampler
    with pytest.raises(ValueError, match="hold all 4 deferred"):
        Probe.from_dataset(dataset, deferred=sampler, per_group=3)


def test_ranks_share_the_probe_in_passes_of_the_same_size() -> None:
    groups = {
        "long": ProbeGroup.of([[i] * 5000 for i in range(5)], range(5)),
        "short": ProbeGroup.of([[i] * 10 for i in range(7)], range(7)),
    }
    probe = Probe(groups=groups)
    shares = [shard(probe, rank, 2, CPU) for rank in range(2)]
    assert [[batch.shape for batch in share] for share in shares] == [[(1, 5000)] * 3 + [(4, 10)]] * 2
    for name, size in (("long", 5), ("short", 7)):
        ids = [
            i for share in shares for batch in share if batch.group == name for i in batch.sample_ids.tolist()
        ]
        assert sorted(ids) == list(range(size))
    told = shard(Probe(groups=groups, batch_size=2), 0, 1, CPU)
    assert [batch.shape[0] for batch in told] == [2, 2, 1, 2, 2, 2, 1]
