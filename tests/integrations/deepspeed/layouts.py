"""One rank of jobs that are split over ranks in many ways, run by test_layouts.py: trains and is watched."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

VOCABULARY, LENGTH, WIDTH, EXPERTS, RATE = 32, 8, 16, 4, 0.5
_generator = torch.Generator().manual_seed(1)
PROBE = torch.randint(VOCABULARY, (5, LENGTH), generator=_generator)
PROBE_IDS = torch.arange(100, 105)
TRAIN = torch.randint(VOCABULARY, (8, LENGTH), generator=_generator)
TRAIN_IDS = torch.arange(8)
LABELS = PROBE.masked_fill(torch.rand(PROBE.shape, generator=_generator) < 0.4, -100)
LABELS[0, :5] = -100  # with two token parts the first has no target
LABELS[1] = -100
LABELS[1, 2] = 7  # a single target
LABELS[2] = -100  # says nothing
MASK = torch.ones_like(PROBE)
MASK[3, 4:] = 0  # with two token parts the second is padding alone
LABELS[3, 4:] = -100
LABELS[3, 2] = 5
SEQUENCE_LABELS = TRAIN.clone()
SEQUENCE_LABELS[0] = -100
SEQUENCE_LABELS[0, 2], SEQUENCE_LABELS[0, 6] = 3, 9  # one target in each of two token parts
SEQUENCE_LABELS[1, :4] = -100
STEPS = 2


def hf_model(family: str, attention: str = "eager") -> nn.Module:
    """A tiny mixture-of-experts language model of transformers, seeded."""
    import transformers

    sizes = {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "intermediate_size": 8,
        "moe_intermediate_size": 8,
        "num_hidden_layers": 3,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": WIDTH // 2,
        "num_experts": EXPERTS,
        "num_local_experts": EXPERTS,
        "num_experts_per_tok": 2,
        "max_position_embeddings": 64,
        "pad_token_id": 0,
        "eos_token_id": 1,
    }
    config = getattr(transformers, f"{family}Config")(**sizes, attn_implementation=attention)
    torch.manual_seed(0)
    model: nn.Module = getattr(transformers, f"{family}ForCausalLM")(config)
    with torch.no_grad():  # routers that have an opinion
        for name, parameter in model.named_parameters():
            if "gate.weight" in name:
                parameter.mul_(20)
    return model


class Block(nn.Module):
    """A DeepSpeed MoE layer with a residual connection; its own seed, so that stages build the same."""

    def __init__(self, seed: int, ep_size: int = 1) -> None:
        super().__init__()
        from deepspeed.moe.layer import MoE

        torch.manual_seed(seed)
        self.moe = MoE(
            WIDTH,
            nn.Linear(WIDTH, WIDTH),
            num_experts=EXPERTS,
            ep_size=ep_size,
            k=1,
            drop_tokens=False,
            use_rts=False,
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.moe(x)[0]


class Plain(nn.Module):
    """A layer without experts."""

    def __init__(self, seed: int, width: int = WIDTH) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.linear = nn.Linear(WIDTH, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x)


class Embed(nn.Module):
    """Tokens to vectors."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.embedding(tokens)


# No token sees another: split or not, each is routed alike.
TOKEN_WISE: list[tuple[Any, ...]] = [(Embed, 1), (Block, 2), (Block, 3), (Plain, 4, VOCABULARY)]
PIPELINES: dict[str, list[tuple[Any, ...]]] = {
    # Two stages of three layers each.
    "both": [(Embed, 1), (Block, 2), (Block, 3), (Block, 4), (Plain, 5), (Plain, 6, VOCABULARY)],
    "last_without": [(Embed, 1), (Block, 2), (Block, 3), (Plain, 4), (Plain, 5), (Plain, 6, VOCABULARY)],
    "first_without": [(Embed, 1), (Plain, 2), (Plain, 3), (Block, 4), (Block, 5), (Plain, 6, VOCABULARY)],
}
MICRO_BATCHES = 2
PIPELINE_LOSSES: dict[str, list[float]] = {}


def token_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy, labels where they are predicted."""
    return cross_entropy(logits.reshape(-1, VOCABULARY), labels.reshape(-1))


def micro_batches(rank: int = 0, ranks: int = 1) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Ids, inputs and labels of a step's micro-batches, the same in every step."""
    share = len(TRAIN) // ranks // MICRO_BATCHES
    for part in range(MICRO_BATCHES):
        rows = slice(
            rank * MICRO_BATCHES * share + part * share, rank * MICRO_BATCHES * share + (part + 1) * share
        )
        yield TRAIN_IDS[rows], TRAIN[rows], TRAIN[rows].roll(-1, 1)


# The cases. Each is given what `attach` needs beside the engine, and the rank.


def zero(options: dict[str, Any], rank: int, stage: int) -> None:
    model = hf_model("Olmoe")
    engine = initialize(model, zero_optimization={"stage": stage, "stage3_param_persistence_threshold": 0})
    watched(engine, options, probe(), lambda ids: engine(input_ids=ids, labels=ids).loss, rank)


def experts(options: dict[str, Any], rank: int) -> None:
    model = nn.Sequential(Embed(1), Block(2, ep_size=2), Block(3, ep_size=2), Plain(4, VOCABULARY))
    engine = initialize(model)
    watched(
        engine,
        options,
        probe("input", shift=False),
        lambda ids: token_loss(engine(ids), ids.roll(-1, 1)),
        rank,
    )


def automatic_experts(options: dict[str, Any], rank: int) -> None:
    engine = initialize(hf_model("Mixtral"), expert_parallel={"enabled": True, "autoep_size": 2})
    watched(engine, options, probe(), lambda ids: engine(input_ids=ids, labels=ids).loss, rank)


def tensor(options: dict[str, Any], rank: int) -> None:
    attention = {
        "use_default_specs": False,
        "layer_specs": [
            {"patterns": [r".*\.[qkv]_proj\.weight$"], "partition_type": "column"},
            {"patterns": [r".*\.o_proj\.weight$"], "partition_type": "row"},
        ],
    }
    engine = initialize(
        hf_model("Mixtral"), tensor_parallel={"autotp_size": 2, "partition_config": attention}
    )
    watched(engine, options, probe(), lambda ids: engine(input_ids=ids, labels=ids).loss, 0, ranks=1)


@functools.cache
def sequence_groups() -> Any:
    """DeepSpeed's groups of Ulysses attention, put in place once in a process."""
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPAttentionHF

    return UlyssesSPAttentionHF.register_with_transformers(
        hf_model("Mixtral", "sdpa"),
        core_attn_implementation="sdpa",
        sequence_parallel_size=2,
        micro_batch_size=2,
    )


def sequence_probe(options: dict[str, Any], rank: int) -> None:
    from pathwatch.integrations.deepspeed import attach

    mpu = sequence_groups()
    engine = initialize(hf_model("Mixtral", "sdpa"), mpu)
    positions = torch.arange(LENGTH).expand_as(PROBE)
    with attach(engine, **options, probe=probe(position_ids=positions, visits=True)) as watch:
        watch.visited("a", [100, 103])
        mine = slice(rank * LENGTH // 2, (rank + 1) * LENGTH // 2)
        for _ in range(STEPS):
            logits = engine(
                input_ids=PROBE[:2, mine], position_ids=positions[:2, mine], use_cache=False
            ).logits
            engine.backward(token_loss(logits, PROBE[:2, mine]))
            engine.step()
        watch.close(60)


def sequence_stream(options: dict[str, Any], rank: int) -> None:
    from deepspeed.runtime.sequence_parallel.ulysses_sp import UlyssesSPDataLoaderAdapter

    from pathwatch.integrations.deepspeed import Stream, attach

    mpu = sequence_groups()
    engine = initialize(hf_model("Mixtral", "sdpa"), mpu)
    whole = {
        "input_ids": TRAIN[2 * rank : 2 * rank + 2],
        "labels": SEQUENCE_LABELS[2 * rank : 2 * rank + 2],
        "position_ids": torch.arange(LENGTH).expand(2, LENGTH),
        "ids": TRAIN_IDS[2 * rank : 2 * rank + 2].tolist(),
    }
    batches = UlyssesSPDataLoaderAdapter(
        [whole], rank, mpu.get_sequence_parallel_group(), 2, torch.device("cpu")
    )
    stream = Stream(window_steps=1, interval=1, groups=lambda inputs: "a", sample_ids="ids")
    with attach(engine, **options, stream=stream) as watch:
        for batch in batches:
            logits = engine(**batch, use_cache=False).logits
            engine.backward(token_loss(logits, batch["shift_labels"]))
            engine.step()
        watch.close(60)


def sequence_mesh(options: dict[str, Any], rank: int) -> None:
    from deepspeed.utils import groups

    from pathwatch.integrations.deepspeed import attach

    groups.mpu = None  # DeepSpeed keeps that of the engine before
    model = nn.Sequential(*(layer(*arguments) for layer, *arguments in TOKEN_WISE))
    engine = initialize(model, sequence_parallel_size=2, data_parallel_size=1)
    with attach(engine, **options, probe=probe("input", shift=False)) as watch:
        watch.begin()
        watch.close(60)


def pipeline(options: dict[str, Any], rank: int, kind: str, mode: str, checkpoint: int = 0) -> None:
    from deepspeed.pipe import LayerSpec, PipelineModule

    from pathwatch.integrations.deepspeed import Stream, attach

    module = PipelineModule(
        [LayerSpec(*spec) for spec in PIPELINES[kind]],
        num_stages=2,
        loss_fn=token_loss,
        partition_method="uniform",
        activation_checkpoint_interval=checkpoint,
        checkpointable_layers=["Block"],
    )
    engine = initialize(module, gradient_accumulation_steps=MICRO_BATCHES, train_micro_batch_size_per_gpu=4)
    if mode == "stream":
        options = {**options, "stream": Stream(window_steps=1, interval=1, shift_labels=False)}
    else:
        options = {**options, "probe": probe("tokens", shift=False)}
    losses = []
    with attach(engine, **options) as watch:
        for _ in range(STEPS):
            for ids, tokens, labels in micro_batches():
                watch.batch(groups="a", sample_ids=ids, shape=tuple(tokens.shape), labels=labels)
            data = iter([(tokens, labels) for _, tokens, labels in micro_batches()])
            losses.append(float(engine.train_batch(data)))
        watch.close(60)
    if PIPELINE_LOSSES.setdefault(kind, losses) != losses:
        raise AssertionError(f"probe and stream mode trained otherwise: {PIPELINE_LOSSES[kind]}, {losses}")


def probe(name: str = "input_ids", shift: bool = True, visits: bool = False, **more: Any) -> Any:
    from pathwatch.integrations.deepspeed import Probe, ProbeGroup

    group = ProbeGroup(inputs={name: PROBE, **more}, sample_ids=PROBE_IDS, labels=LABELS, attention_mask=MASK)
    return Probe(groups={"a": group}, interval=STEPS, batch_size=2, shift_labels=shift, visits=visits)


def initialize(model: nn.Module, mpu: Any = None, **config: Any) -> Any:
    import deepspeed

    return deepspeed.initialize(
        model=model,
        model_parameters=[p for p in model.parameters() if p.requires_grad],
        mpu=mpu,
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=RATE),
        config={
            "train_micro_batch_size_per_gpu": 4,
            "steps_per_print": 1 << 30,
            "zero_allow_untested_optimizer": True,
            **config,
        },
    )[0]


def watched(
    engine: Any,
    options: dict[str, Any],
    probe: Any,
    loss: Callable[[Tensor], Tensor],
    rank: int,
    ranks: int = 2,
) -> None:
    from pathwatch.integrations.deepspeed import attach

    share = len(TRAIN) // ranks
    with attach(engine, **options, probe=probe) as watch:
        for _ in range(STEPS):
            engine.backward(loss(TRAIN[rank * share : (rank + 1) * share]))
            engine.step()
        watch.close(60)


CASES: dict[str, Callable[[dict[str, Any], int], None]] = {
    **{f"zero{stage}": lambda options, rank, stage=stage: zero(options, rank, stage) for stage in range(4)},
    "experts": experts,
    "automatic_experts": automatic_experts,
    "tensor": tensor,
    "sequence_probe": sequence_probe,
    "sequence_stream": sequence_stream,
    "sequence_mesh": sequence_mesh,
    **{
        f"pipeline_{kind}_{mode}": lambda options, rank, kind=kind, mode=mode: pipeline(
            options, rank, kind, mode, int(kind == "both")
        )
        for kind in PIPELINES
        for mode in ("probe", "stream")
    },
}


def main(server: str, cases: Sequence[str]) -> None:
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False
    deepspeed.init_distributed("gloo", verbose=False)
    rank = torch.distributed.get_rank()
    for case in cases:
        options = {"run": case, "server": server, "keep_observations": True, "strict": True}
        CASES[case](options, rank)
        print("done", case, flush=True)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2:])
