"""The Trainer of transformers, watched by pathwatch.

python examples/frameworks/train_transformers.py --run-name trainer --server 127.0.0.1:50051
"""

from __future__ import annotations

from pathlib import Path

import torch
from tiny_task import BATCH, LEARNING_RATE, Sequences, arguments, make_model, make_probe
from transformers import OlmoeForCausalLM, Trainer, TrainingArguments

from pathwatch.integrations.transformers import PathwatchCallback


def main() -> None:
    args = arguments(__doc__)
    torch.set_num_threads(1)
    data = Sequences()
    pathwatch = PathwatchCallback(
        run=args.run,
        server=args.server,
        probe=make_probe(data, interval=args.probe_interval),
        load_best_model_at_end=True,
    )
    trainer = Trainer(
        # Trainer itself does not resume experts: docs/transformers.md.
        model=OlmoeForCausalLM.from_pretrained(args.resume) if args.resume else make_model(),
        args=TrainingArguments(
            output_dir=str(args.out),
            max_steps=args.steps,
            per_device_train_batch_size=BATCH,
            learning_rate=LEARNING_RATE,
            save_steps=100,
            logging_steps=50,
            use_cpu=True,
            disable_tqdm=True,
            report_to="none",
        ),
        train_dataset=data,
        callbacks=[pathwatch],
    )
    trainer.train(resume_from_checkpoint=args.resume and str(args.resume))
    best = Path(trainer.state.best_model_checkpoint or "none").name
    print(f"ended at step {trainer.state.global_step}, best checkpoint: {best}")


if __name__ == "__main__":
    main()
