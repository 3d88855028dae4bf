"""Jobs split over two real ranks, whole again on a real server: equal to the same model in one process."""

from __future__ import annotations

import importlib.util
import itertools
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from pathwatch.client import Client, from_tensor
from pathwatch.server.app import BackgroundServer
from pathwatch.server.config import ServerConfig

SCRIPT = Path(__file__).with_name("layouts.py")


@pytest.fixture(scope="module")
def layouts() -> ModuleType:
    """The script of the ranks: its models and samples."""
    spec = importlib.util.spec_from_file_location("layouts", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@dataclass
class Server:
    """A real sidecar and what it made of the runs."""

    address: str
    client: Client

    def rounds(self, run: str, count: int) -> list[Any]:
        """The closed rounds of a run, once there are `count`."""
        deadline = time.monotonic() + 60
        while len(rounds := list(self.client.get_observations(run))) < count:
            assert time.monotonic() < deadline, f"{run}: {len(rounds)} of {count} rounds were closed"
            time.sleep(0.02)
        return rounds


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    with (
        BackgroundServer(ServerConfig(data=tmp_path / "data")) as running,
        Client(running.grpc_address) as client,
    ):
        yield Server(running.grpc_address, client)


@pytest.fixture
def run_ranks(server: Server, start_ranks: Callable) -> Callable[[list[str]], None]:
    """Two processes that go through these cases together."""

    def run(cases: list[str]) -> None:
        for process in start_ranks(SCRIPT, lambda rank: [server.address, *cases]):
            _, errors = process.communicate(timeout=400)
            assert process.returncode == 0, errors[-3000:]
            warnings = [line for line in errors.splitlines() if line.startswith("pathwatch")]
            assert not warnings, errors[-3000:]

    return run


@dataclass
class Whole:
    """Samples as one process sees them; [N, …] in the order of the ids."""

    weights: np.ndarray
    target_weights: np.ndarray
    losses: np.ndarray
    targets: np.ndarray
    tokens: np.ndarray
    grams: tuple[np.ndarray, np.ndarray]


def read_whole(
    forward: Callable[[Tensor], Tensor],
    gates: list[tuple[nn.Module, Tensor]],
    tokens: Tensor,
    labels: Tensor,
    mask: Tensor,
    *,
    shifted: bool = False,
) -> Whole:
    """By plain hooks and the definitions; `labels` stand where they are predicted.

    Where every token carries a loss, with shifted labels all but the last, target weights are the weights.
    """
    hidden: list[Tensor] = []
    handles = [
        gate.register_forward_hook(lambda module, args, output: hidden.append(args[0].detach()))
        for gate, _ in gates
    ]
    with torch.no_grad():
        logits = forward(tokens)
    for handle in handles:
        handle.remove()
    rows: dict[str, list[Any]] = {"weights": [], "target_weights": [], "losses": [], "targets": []}
    for n in range(len(tokens)):
        real, target = mask[n] == 1, (mask[n] == 1) & (labels[n] != -100)
        chosen = labels[n][target]
        plain = int(target.sum()) == int(real.sum()) - shifted
        for name, kept in (("weights", real), ("target_weights", real if plain else target)):
            layers = [
                (x.reshape(*tokens.shape, -1)[n] @ weight.T).softmax(-1)[kept].mean(0)
                for x, (_, weight) in zip(hidden, gates, strict=True)
            ]
            rows[name].append(torch.stack(layers).detach().numpy())
        rows["losses"].append(
            float(-logits[n][target].log_softmax(-1).gather(1, chosen[:, None]).mean())
            if len(chosen)
            else np.nan
        )
        rows["targets"].append(int(chosen[0]) if len(chosen) == 1 else -1)
    weights = [weight.detach() for _, weight in gates]
    own = np.stack([(w @ w.T).numpy() for w in weights])
    following = [(a @ b.T).numpy() for a, b in itertools.pairwise(weights)]
    return Whole(
        **{name: np.array(values) for name, values in rows.items()},
        tokens=mask.sum(1).numpy(),
        grams=(own, np.stack(following)),
    )


def assert_same(observed: Any, ids: Tensor, whole: Whole, *, geometry: bool = True) -> None:
    """A round's only group holds the samples that have a target, as one process sees them."""
    [group] = observed.groups
    assert not group.partial
    useful = np.flatnonzero(~np.isnan(whole.losses))
    assert from_tensor(group.sample_ids).tolist() == ids[useful].tolist()
    np.testing.assert_allclose(from_tensor(group.weights), whole.weights[useful], atol=2e-5)
    np.testing.assert_allclose(from_tensor(group.losses), whole.losses[useful], rtol=1e-4)
    np.testing.assert_array_equal(from_tensor(group.token_counts), whole.tokens[useful])
    if group.HasField("target_weights"):
        np.testing.assert_allclose(from_tensor(group.target_weights), whole.target_weights[useful], atol=2e-5)
        targets = from_tensor(group.targets) if group.HasField("targets") else np.full(len(useful), -1)
        np.testing.assert_array_equal(targets, whole.targets[useful])
    if geometry:
        np.testing.assert_allclose(
            from_tensor(observed.geometry.gram_self), whole.grams[0], rtol=1e-3, atol=1e-3
        )
        np.testing.assert_allclose(
            from_tensor(observed.geometry.gram_next), whole.grams[1], rtol=1e-3, atol=1e-3
        )


def train_whole(model: nn.Module, loss: Callable[[], Tensor], layouts: ModuleType) -> None:
    """As the ranks do together."""
    optimizer = torch.optim.SGD(model.parameters(), lr=layouts.RATE)
    for _ in range(layouts.STEPS):
        optimizer.zero_grad()
        loss().backward()
        optimizer.step()


@pytest.fixture
def whole_of(layouts: ModuleType, deepspeed_world: None) -> Callable[[list[Any]], nn.Sequential]:
    """A model of layers as the script names them, on one process."""

    def build(layers: list[Any]) -> nn.Sequential:
        model = nn.Sequential(*(layer(*arguments) for layer, *arguments in layers))
        for block in model:
            if isinstance(block, layouts.Block):
                block.moe.set_deepspeed_parallelism()
        return model

    return build


def deepspeed_gates(model: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    return [(module, module.wg.weight) for module in model.modules() if type(module).__name__ == "TopKGate"]


def hf_gates(model: nn.Module) -> list[tuple[nn.Module, Tensor]]:
    return [(layer.mlp.gate, layer.mlp.gate.weight) for layer in model.model.layers]


def hf_readings(model: nn.Module, layouts: ModuleType) -> Whole:
    model.eval()
    whole = read_whole(
        lambda tokens: model(input_ids=tokens).logits,
        hf_gates(model),
        layouts.PROBE,
        nn.functional.pad(layouts.LABELS, (0, 1), value=-100)[:, 1:],
        layouts.MASK,
        shifted=True,
    )
    model.train()
    return whole


@pytest.mark.slow
def test_ranks_with_shards_of_states_experts_or_tensors_make_up_the_whole_model(
    layouts: ModuleType,
    server: Server,
    run_ranks: Callable,
    whole_of: Callable[[list[Any]], nn.Sequential],
) -> None:
    """ZeRO 0 to 3 with partitioned routers, DeepSpeed's MoE and AutoEP with experts on both ranks; AutoTP,
    where both ranks see the same samples and one sends them."""
    zero = [f"zero{stage}" for stage in range(4)]
    run_ranks([*zero, "experts", "automatic_experts", "tensor"])
    for family, cases in (("Olmoe", zero), ("Mixtral", ["automatic_experts", "tensor"])):
        model = layouts.hf_model(family)

        def loss(model: nn.Module = model) -> Tensor:
            return model(input_ids=layouts.TRAIN, labels=layouts.TRAIN).loss

        before = hf_readings(model, layouts)
        train_whole(model, loss, layouts)
        after = hf_readings(model, layouts)
        for case in cases:
            first, second = server.rounds(case, 2)
            assert_same(first, layouts.PROBE_IDS, before)
            assert_same(second, layouts.PROBE_IDS, after)
    model = whole_of(layouts.TOKEN_WISE).eval()
    whole = read_whole(model, deepspeed_gates(model), layouts.PROBE, layouts.LABELS, layouts.MASK)
    assert_same(server.rounds("experts", 2)[0], layouts.PROBE_IDS, whole)
    # Of the ranks of a tensor group one sends.
    assert server.client.get_run("tensor").world_size == 1


@pytest.mark.slow
def test_parts_of_the_tokens_make_up_whole_samples(
    layouts: ModuleType, server: Server, run_ranks: Callable, whole_of: Callable[[list[Any]], nn.Sequential]
) -> None:
    """DeepSpeed's Ulysses, its groups from an mpu and from a mesh: parts without a target, of padding alone,
    targets in several parts."""
    run_ranks(["sequence_probe", "sequence_stream", "sequence_mesh"])
    model = layouts.hf_model("Mixtral", "sdpa").eval()
    for case, ids, tokens, labels, mask in (
        ("sequence_probe", layouts.PROBE_IDS, layouts.PROBE, layouts.LABELS, layouts.MASK),
        (
            "sequence_stream",
            layouts.TRAIN_IDS[:2],
            layouts.TRAIN[:2],
            layouts.SEQUENCE_LABELS[:2],
            torch.ones(2, layouts.LENGTH),
        ),
    ):
        whole = read_whole(
            lambda tokens: model(input_ids=tokens).logits,
            hf_gates(model),
            tokens,
            nn.functional.pad(labels, (0, 1), value=-100)[:, 1:],
            mask,
        )
        assert_same(server.rounds(case, 1)[0], ids, whole)
    token_wise = whole_of(layouts.TOKEN_WISE).eval()
    whole = read_whole(token_wise, deepspeed_gates(token_wise), layouts.PROBE, layouts.LABELS, layouts.MASK)
    assert_same(server.rounds("sequence_mesh", 1)[0], layouts.PROBE_IDS, whole)
    # Both ranks were told of the same two samples.
    before, after = server.rounds("sequence_probe", 2)
    assert from_tensor(before.groups[0].visits).tolist() == [0, 0, 0, 0]
    assert from_tensor(after.groups[0].visits).tolist() == [1, 0, 1, 0]


@pytest.mark.slow
def test_stages_of_a_pipeline_make_up_the_whole_model(
    layouts: ModuleType, server: Server, run_ranks: Callable, whole_of: Callable[[list[Any]], nn.Sequential]
) -> None:
    """Layers in both stages, under activation checkpointing; none in the last, which has the losses; none in
    the first, which follows the signal."""
    cases = [f"pipeline_{kind}_{mode}" for kind in layouts.PIPELINES for mode in ("probe", "stream")]
    run_ranks(cases)
    for kind in layouts.PIPELINES:
        model = whole_of(layouts.PIPELINES[kind])
        gates = deepspeed_gates(model)

        def seen(model: nn.Module = model, gates: list[Any] = gates) -> tuple[Whole, Whole]:
            model.eval()
            probe = read_whole(model, gates, layouts.PROBE, layouts.LABELS, layouts.MASK)
            model.train()
            labels = layouts.TRAIN.roll(-1, 1)
            return probe, read_whole(model, gates, layouts.TRAIN, labels, torch.ones_like(labels))

        def loss(model: nn.Module = model) -> Tensor:
            return layouts.token_loss(model(layouts.TRAIN), layouts.TRAIN.roll(-1, 1))

        probe, stream = seen()
        probed = server.rounds(f"pipeline_{kind}_probe", 2)
        streamed = server.rounds(f"pipeline_{kind}_stream", layouts.STEPS)
        assert [one.step for one in probed] == [0, layouts.STEPS]
        assert [one.step for one in streamed] == list(range(layouts.STEPS))
        assert_same(probed[0], layouts.PROBE_IDS, probe)
        assert_same(streamed[0], layouts.TRAIN_IDS, stream, geometry=False)
        train_whole(model, loss, layouts)
        probe, _ = seen()
        assert_same(probed[1], layouts.PROBE_IDS, probe)
