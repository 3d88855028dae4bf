"""Trainer keeps, and in the end loads, the checkpoint that the service ranks best."""

from __future__ import annotations

from pathlib import Path

from accelerate.state import AcceleratorState
from accelerate.utils import DistributedType
from torch import nn
from transformers import PreTrainedModel, TrainerState, TrainingArguments

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.observing import Watch

_logger = QuietLogger("pathwatch.integrations")


class BestModel:
    """Chooses by the service what Trainer chooses by an evaluation metric."""

    def __init__(self, args: TrainingArguments, watch: Watch) -> None:
        self._args = args
        self._watch = watch
        self._load_best_model_at_end = args.load_best_model_at_end
        if args.save_total_limit and args.metric_for_best_model is not None:
            _logger.warning(
                "save_total_limit=%s may delete the checkpoint that the service ranks best: Trainer spares "
                "the best by %r instead: leave out one of the two",
                args.save_total_limit,
                args.metric_for_best_model,
            )

    def choose(self, state: TrainerState) -> None:
        """Make the best checkpoint so far Trainer's best: `save_total_limit` spares it. Collective."""
        folder = self._folder()
        if folder is not None:
            state.best_model_checkpoint = str(folder)

    def load(self, state: TrainerState, model: nn.Module) -> None:
        """Load the best checkpoint, right before Trainer would. Collective.

        Trainer does it where DeepSpeed or FSDP hold the weights. Elsewhere it skips weights that a checkpoint
        names otherwise than the model does, as those of experts are (transformers issue 48805).
        """
        folder = self._folder()
        if folder is None:
            self._args.load_best_model_at_end = False
            _logger.warning(
                "no checkpoint is ranked best, or it is not in %s any more: the model stays as trained last",
                self._args.output_dir,
            )
            return
        state.best_model_checkpoint = str(folder)
        elsewhere = AcceleratorState().distributed_type in (DistributedType.DEEPSPEED, DistributedType.FSDP)
        self._args.load_best_model_at_end = elsewhere or not isinstance(model, PreTrainedModel)
        if not self._args.load_best_model_at_end:
            try:
                _load(model, folder)
            except Exception:
                _logger.exception(
                    "cannot load the best checkpoint %s: the model stays as trained last", folder
                )

    def restore(self) -> None:
        """The arguments as the user gave them."""
        self._args.load_best_model_at_end = self._load_best_model_at_end

    def _folder(self) -> Path | None:
        """Of the best checkpoint so far; None if there is none."""
        tag = self._watch.best_checkpoint()
        folder = None if tag is None else Path(self._args.output_dir, tag)
        return folder if folder is not None and folder.is_dir() else None


def _load(model: PreTrainedModel, folder: Path) -> None:
    stored = type(model).from_pretrained(folder, config=model.config, dtype=model.dtype)
    model.load_state_dict(stored.state_dict())
