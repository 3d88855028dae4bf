"""Deferred samples: a chosen few that training sees late, so that until then their loss is held-out loss."""

from pathwatch.integrations.deferred.choice import members_of, smallest_by_hash
from pathwatch.integrations.deferred.sampler import DeferredSampler
from pathwatch.integrations.deferred.visits import ScheduledVisits

__all__ = ["DeferredSampler", "ScheduledVisits", "members_of", "smallest_by_hash"]
