"""pathwatch for Ray Tune: a stopper that ends trials whose runs are told to stop."""

from pathwatch.integrations.ray.stopper import PathwatchStopper

__all__ = ["PathwatchStopper"]
