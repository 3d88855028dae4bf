"""What the sketch refuses."""

from __future__ import annotations


class SketchError(ValueError):
    """A block that the sketch cannot take; nothing of it was stored.

    `field` is a path in the StreamRoutingRequest that brought the block ("batch.fragment.layers"),
    `sample_id` the sample at fault where there is one.
    """

    def __init__(self, field: str, message: str, sample_id: int | None = None) -> None:
        super().__init__(message)
        self.field = field
        self.message = message
        self.sample_id = sample_id
