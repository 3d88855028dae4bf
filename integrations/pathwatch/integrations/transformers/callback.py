"""The callback of transformers' Trainer."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack
from weakref import ReferenceType, ref

from torch import nn
from torch.utils.data import DataLoader
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.observing import Options, Settings, Watch, scalars
from pathwatch.integrations.transformers.best_model import BestModel
from pathwatch.integrations.transformers.columns import Columns, carry, drop
from pathwatch.integrations.transformers.obstacles import obstacle
from pathwatch.integrations.transformers.saved_state import keep, kept
from pathwatch.integrations.transformers.trainer_job import TrainerJob

_logger = QuietLogger("pathwatch.integrations")


class PathwatchCallback(TrainerCallback):  # type: ignore[misc]
    """Watches the model that a Trainer trains: plain, under accelerate, or on DeepSpeed.

        Trainer(..., callbacks=[PathwatchCallback(run="my-run", probe=Probe(groups=...))])

    Checkpoints that the service asks for are saved by Trainer, all it saves are registered, and training
    stops at the step on which all ranks agreed. `watch` is there from the beginning of training on.
    """

    def __init__(
        self,
        *,
        load_best_model_at_end: bool = False,
        groups: str | None = None,
        sample_ids: str | None = None,
        **options: Unpack[Options],
    ) -> None:
        """
        Args:
            load_best_model_at_end: like the training argument of that name, but the best checkpoint is the
                service's choice: no evaluation is needed. It is spared by `save_total_limit`.
            groups, sample_ids: probe mode with `visits`: columns of the training data that hold each sample's
                group and id. In stream mode name them in the `Stream`.
            options: the fields of `observing.Settings`; `run`, and either `probe` or `stream`, are needed.

        Raises:
            ValueError: arguments that do not fit together. With `strict=True` the beginning of training
                raises one for a model without routers, or a job that cannot be watched.
        """
        self._settings = Settings.of(options)
        if self._settings.stream is not None:
            if groups is not None or sample_ids is not None:
                raise ValueError("in stream mode say groups= and sample_ids= in the Stream")
            self._columns = Columns.of(self._settings.stream)
        else:
            if (groups is None) != (sample_ids is None):
                raise ValueError("visits need both columns, groups= and sample_ids=")
            self._columns = Columns(groups=groups, sample_ids=sample_ids)
        self._load_best_model_at_end = load_best_model_at_end
        self._best: BestModel | None = None
        self._save_owed = False
        self._trained: ReferenceType[nn.Module] | None = None
        self._left: dict[str, Any] | None = None
        self._open = False
        self.watch: Watch | None = None
        """The watch of the present, or the last, training."""

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        train_dataloader: DataLoader[Any],
        **kwargs: Any,
    ) -> None:
        """Attach, and read for the first time. Collective."""
        self._leave()
        problem = obstacle(args, self._settings, self._columns, train_dataloader)
        job = TrainerJob(model, args, state, problem)
        watch = self.watch = Watch(job, self._sparing(args))
        self._open = True
        self._save_owed = False
        if self._columns.names:
            watch.on_close(
                carry(self._columns, train_dataloader, model, watch)
                if problem is None
                else drop(self._columns, train_dataloader)
            )
        if self._load_best_model_at_end:
            self._best = BestModel(args, watch)
            watch.on_close(self._best.restore)
        before = kept(state)
        if before is None and self._trained is not None and self._trained() is model:
            # The same model is trained on, e.g. with the batch size that `auto_find_batch_size` found.
            before = self._left
        self._trained = ref(model)
        if before is not None:
            watch.load_state_dict(before)
        watch.begin()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Observe, and do what the service wants. Collective."""
        if self.watch is not None:
            self.watch.after_step()
            self._save_owed |= self.watch.should_checkpoint()
            if self.watch.should_stop():
                control.should_training_stop = True
        return self._saving(state, control)

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Save what was not saved at the step's end. Collective."""
        return self._saving(state, control)

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Make the checkpoint known, and leave in it what a resumed job needs. Collective."""
        if self.watch is None:
            return
        self._save_owed = False
        folder = Path(args.output_dir, f"checkpoint-{state.global_step}")
        self.watch.checkpoint_saved(folder.name, str(folder.resolve()))
        keep(state, self.watch.state_dict(), folder, write=args.should_save)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        *,
        model: nn.Module,
        logs: dict[str, Any],
        **kwargs: Any,
    ) -> None:
        """Log what the service says. The last log of all comes right before Trainer loads the best model, and
        is collective."""
        signal = None if self.watch is None else self.watch.signal
        if signal is not None:
            values = scalars(signal)
            logs.update(values)
            if state.log_history:
                state.log_history[-1].update(values)
        if self._best is not None and "train_runtime" in logs:
            self._best.load(state, model)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Send what is left. Collective."""
        self._leave()

    def _saving(self, state: TrainerState, control: TrainerControl) -> TrainerControl:
        # Trainer forgets a wish to save where save_strategy="best" evaluates: it is owed until it is saved.
        if self._save_owed:
            control.should_save = True
        if self._best is not None and control.should_save:
            self._best.choose(state)
        return control

    def _sparing(self, args: TrainingArguments) -> Settings:
        """Settings that delete nothing where Trainer will load a best checkpoint of its own choice."""
        checkpoints = self._settings.checkpoints
        if (
            checkpoints is None
            or checkpoints.keep is None
            or self._load_best_model_at_end
            or not args.load_best_model_at_end
        ):
            return self._settings
        _logger.warning(
            "pathwatch deletes no checkpoints: Trainer loads the best by %r, which could be among them; use "
            "PathwatchCallback(load_best_model_at_end=True)",
            args.metric_for_best_model,
        )
        return replace(self._settings, checkpoints=replace(checkpoints, keep=None))

    def _leave(self) -> None:
        """Close the watch, if one is open: training has ended, or failed and begins again."""
        if self.watch is not None and self._open:
            self._open = False
            self._left = self.watch.state_dict()
            self.watch.close()
        self._best = None
