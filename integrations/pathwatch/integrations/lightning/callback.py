"""The callback of Lightning's Trainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.lightning.flavours import callback_base
from pathwatch.integrations.lightning.jobs import job_of
from pathwatch.integrations.lightning.trained_model import trained_model
from pathwatch.integrations.observing import Options, Settings, Watch, scalars
from pathwatch.v1 import signal_pb2

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule, Trainer

_logger = QuietLogger("pathwatch.integrations")


class PathwatchCallback(callback_base()):  # type: ignore[misc]
    """Watches the model that a Trainer fits.

        Trainer(..., callbacks=[PathwatchCallback(run="my-run", probe=Probe(groups=...))])

    Steps are `trainer.global_step`, which counts those of all optimizers. Checkpoints that the service asks
    for are saved, every checkpoint that the Trainer saves (`ModelCheckpoint`, `trainer.save_checkpoint`) is
    made known under its path, training stops at the step on which all ranks agreed, and what the service says
    is logged. Passes of validation and of the sanity check are not observed.
    """

    def __init__(
        self,
        *,
        model: str | None = None,
        dirpath: str | Path | None = None,
        **options: Unpack[Options],
    ) -> None:
        """
        Args:
            model: name of the part of the LightningModule that turns a batch's inputs into logits, e.g.
                `model`; None = its only child with all the parameters, else its own `forward`.
            dirpath: where to save the checkpoints that the service asks for; None = where `ModelCheckpoint`
                saves, else `checkpoints` in the Trainer's default_root_dir.
            options: the fields of `observing.Settings`; `run`, and either `probe` or `stream`, are needed.

        Raises:
            ValueError: arguments that do not fit together. With `strict=True` the beginning of training
                raises one for a model that cannot be watched.
        """
        super().__init__()
        self._settings = Settings.of(options)
        self._model = model
        self._dirpath = None if dirpath is None else Path(dirpath)
        self._restored: Mapping[str, Any] = {}
        self._logged: signal_pb2.Signal | None = None
        self._stopping = False
        self._step = -1
        self._saving: str | None = None
        self._saved_at = -1
        self.watch: Watch | None = None
        """The watch of the present, or the last, training."""
        self.best_checkpoint: str | None = None
        """Path of the best checkpoint, once training has ended; None = not known."""

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Attach, after everything is restored, and read for the first time. Collective."""
        self.watch = self.best_checkpoint = self._logged = None
        self._stopping, self._saved_at = False, -1
        settings = self._settings
        try:
            model = trained_model(pl_module, self._model)
        except ValueError as error:
            if self._settings.strict:
                raise
            _logger.error("pathwatch observes nothing, training goes on: %s", error)
            model, settings = pl_module, replace(settings, enabled=False)
        watch = self.watch = Watch(job_of(trainer, model), settings)
        restored, self._restored = self._restored, {}
        if restored:
            watch.load_state_dict(restored)
        self._register_checkpoints(trainer, watch)
        self._step = trainer.global_step
        watch.begin()

    def on_train_batch_end(self, trainer: Trainer, pl_module: LightningModule, *args: Any) -> None:
        """Observe where the batch ended a step, and do what the service wants. Collective."""
        watch = self.watch
        if watch is None or self._step == trainer.global_step:
            return
        self._step = trainer.global_step
        watch.after_step()
        self._log(trainer, watch)
        # The Trainer may go on, for `min_steps`: the last checkpoint is saved once.
        if watch.should_checkpoint() and not self._stopping:
            trainer.save_checkpoint(self._folder(trainer) / f"pathwatch-step={trainer.global_step}.ckpt")
        if watch.should_stop():
            self._stopping = trainer.should_stop = True

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ask for the best checkpoint, send what is left. Collective."""
        if self.watch is not None:
            self.best_checkpoint = self.watch.best_checkpoint()
            self.watch.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Send what is left."""
        if self.watch is not None:
            self.watch.close()

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint should hold of the watch. Collective."""
        return {} if self.watch is None else self.watch.state_dict(self._saving, self._saving)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep what a checkpoint holds until training begins: it then is the next attempt."""
        self._restored = state_dict

    def _register_checkpoints(self, trainer: Trainer, watch: Watch) -> None:
        """Have the Trainer make known what it saves, whoever has it do so, until the watch is closed."""
        save = trainer.save_checkpoint

        def saved(filepath: str | Path, *args: Any, **kwargs: Any) -> None:
            # The first file of a step is its checkpoint: `last.ckpt` comes after it and is overwritten later.
            if self._saved_at == trainer.global_step:
                save(filepath, *args, **kwargs)
                return
            self._saving = str(filepath)
            try:
                save(filepath, *args, **kwargs)
                watch.checkpoint_saved(self._saving, filepath)
                self._saved_at = trainer.global_step
            finally:
                self._saving = None

        trainer.save_checkpoint = saved
        watch.on_close(lambda: vars(trainer).pop("save_checkpoint", None))

    def _folder(self, trainer: Trainer) -> Path:
        """Where to save."""
        configured = getattr(trainer.checkpoint_callback, "dirpath", None)
        if self._dirpath is not None:
            return self._dirpath
        return Path(configured) if configured else Path(trainer.default_root_dir, "checkpoints")

    def _log(self, trainer: Trainer, watch: Watch) -> None:
        """Give a new signal to the Trainer's loggers; only rank 0 knows of any."""
        signal = watch.signal
        if signal is None or signal is self._logged:
            return
        self._logged = signal
        for logger in trainer.loggers:
            try:
                logger.log_metrics(scalars(signal), step=trainer.global_step)
            except Exception as error:
                _logger.warning("pathwatch: %s lost what the service says: %s", type(logger).__name__, error)
