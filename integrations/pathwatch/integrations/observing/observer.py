"""From a job's steps to messages for the sidecar."""

from __future__ import annotations

import functools

import torch

from pathwatch.client import RoutingStream
from pathwatch.integrations.capture import Router, RouterRecorder, find_routers, gram_matrices
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.batch_reader import BatchReader
from pathwatch.integrations.observing.guard import Guard
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.outbox import Floats, Outbox
from pathwatch.integrations.observing.probe_reader import ProbeReader
from pathwatch.integrations.observing.sender import Sender
from pathwatch.integrations.observing.settings import Settings
from pathwatch.v1 import run_pb2, signal_pb2


class Observer:
    """Reads the routers of one process, and sends what they gave under the present attempt."""

    def __init__(
        self,
        job: Job,
        settings: Settings,
        routers: list[Router],
        layout: Layout,
        experts: int,
        agreement: Agreement,
        guard: Guard,
    ) -> None:
        self._job = job
        self._settings = settings
        self._layout = layout
        self._guard = guard
        self._recorder = RouterRecorder(routers)
        self._outbox = Outbox()
        self._experts = experts
        self._sender: Sender | None = None
        self._config: run_pb2.RunConfig = settings.run_config(layers=layout.total_layers, experts=experts)
        self.probe = (
            None
            if settings.probe is None
            else ProbeReader(job, layout, self._recorder, settings.probe, agreement)
        )
        self.batches = (
            None
            if settings.stream is None or not layout.observes
            else BatchReader(
                job,
                layout,
                self._recorder,
                self._outbox,
                self._opened,
                guard,
                settings.stream,
                functools.partial(find_routers, job.module, settings.router),
            )
        )

    @property
    def signal(self) -> signal_pb2.Signal | None:
        """Newest signal, on the rank that follows it."""
        return None if self._sender is None else self._sender.signal

    def begin(self, attempt: int) -> None:
        """Open the stream of an attempt; one that was open is closed, what it holds sent before."""
        with self._guard(f"beginning attempt {attempt}"):
            if self._sender is not None:
                if self.batches is not None:
                    self.batches.went_back(self._job.step)
                self._outbox.deliver(wait=True)
                self._sender.close(1.0)
            self._sender = Sender(self._connected(attempt), self._layout, self._experts)
            if self.probe is not None:
                self.probe.begin()

    def observe(self, step: int) -> None:
        """What is to be done once `step` optimizer steps are done. Collective."""
        if self.batches is not None:
            self.batches.step_begins(step)
        if self.probe is not None and self._settings.probe is not None:
            if step % self._settings.probe.interval == 0:
                self.probe.read(step, self._opened(), self._outbox, self._guard)
                self._complete(step, geometry=True)
        elif self._settings.stream is not None and step > 0:
            # Batches of step s are those whose forward pass came after s optimizer steps.
            closes = step % self._settings.stream.window_steps == 0
            if closes or self._settings.stream.observes(step - 1):
                self._complete(step - 1, geometry=closes)
        self._deliver()

    def register_checkpoint(self, step: int, tag: str) -> None:
        """Make a saved checkpoint known once all before it is sent."""
        sender = self._opened()
        self._outbox.then(lambda: sender.register_checkpoint(step=step, tag=tag))
        self._deliver()

    def flush(self, timeout: float) -> None:
        """Wait, `timeout` seconds at most, until the sidecar has what was read and saved so far."""
        self._outbox.deliver(wait=True)
        if self._sender is not None:
            self._sender.flush(timeout)

    def stop(self) -> None:
        """Observe no more: take the hooks off, hand what was read to the stream. Not collective."""
        self._recorder.close()
        if self.batches is not None:
            self.batches.close()
        self._outbox.deliver(wait=True)

    def close(self, timeout: float) -> None:
        """Stop, and send what is left within `timeout` seconds. Not collective."""
        try:
            self.stop()
        finally:
            if self._sender is not None:
                self._sender.close(timeout)

    def _connected(self, attempt: int) -> RoutingStream | None:
        """A stream for an attempt; None where another process sends what is seen here."""
        layout = self._layout
        if layout.sender is None:
            return None
        return RoutingStream(
            self._settings.server,
            run=self._settings.run,
            attempt=attempt,
            rank=layout.sender,
            world_size=layout.senders,
            config=self._config,
            credentials=self._settings.credentials,
            watch=layout.rank == 0,
            spool=self._settings.spool_settings(),
        )

    def _opened(self) -> Sender:
        if self._sender is None:
            raise RuntimeError("no attempt has begun")
        return self._sender

    def _complete(self, step: int, *, geometry: bool) -> None:
        """Everything of this process up to `step` is in the outbox."""
        matrices = self._job.router_matrices(self._recorder.routers) if geometry else []
        if self._guard.failed:
            return
        with self._guard(f"finishing step {step}"):
            sender = self._opened()
            if matrices and self._layout.rank == 0:
                own_LKK, next_LKK = gram_matrices(matrices)

                def send(flat: Floats) -> None:
                    sender.geometry(
                        step=step,
                        gram_self=flat[: own_LKK.numel()].reshape(own_LKK.shape),
                        gram_next=flat[own_LKK.numel() :].reshape(next_LKK.shape),
                    )

                self._outbox.add(torch.cat([own_LKK.flatten(), next_LKK.flatten()]), send)
            self._outbox.then(lambda: sender.watermark(step))

    def _deliver(self) -> None:
        if not self._guard.failed:
            with self._guard("sending"):
                self._outbox.deliver()
