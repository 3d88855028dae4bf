"""Whether a job can be observed, on all its ranks or on none."""

from __future__ import annotations

from pathwatch.client.logs import QuietLogger
from pathwatch.integrations.capture import NoRoutersError, find_routers
from pathwatch.integrations.observing.agreement import Agreement
from pathwatch.integrations.observing.guard import Guard
from pathwatch.integrations.observing.job import Job
from pathwatch.integrations.observing.layout import Layout
from pathwatch.integrations.observing.observer import Observer
from pathwatch.integrations.observing.settings import Settings

_logger = QuietLogger("pathwatch.integrations")


def observer_of(job: Job, settings: Settings, agreement: Agreement, guard: Guard) -> Observer | None:
    """What observes this process; None, which is logged, when some rank cannot be observed. Collective.

    Raises:
        ValueError: with `settings.strict`, instead of None.
    """
    problem: Exception | None = None
    observer: Observer | None = None
    try:
        routers = find_routers(job.module, settings.router)
    except Exception as error:
        routers, problem = [], error
    layout = Layout()
    try:
        layout = job.layout(len(routers))
    except Exception as error:
        problem = error  # says more than that routers look odd under it
    if isinstance(problem, NoRoutersError) and layout.total_layers:
        problem = None  # a pipeline stage without any
    experts = agreement.largest(routers[0].experts if routers else 0)
    if problem is None:
        try:
            observer = Observer(job, settings, routers, layout, experts, agreement, guard)
        except Exception as error:
            problem = error
    if not agreement.any(problem is not None):
        return observer
    if observer is not None:
        observer.close(0.0)
    if problem is None:
        problem = ValueError("another rank cannot be observed; its own message says why")
    if settings.strict:
        agreement.close()
        raise problem
    _logger.error("pathwatch observes nothing of run %r, training goes on: %s", settings.run, problem)
    return None
