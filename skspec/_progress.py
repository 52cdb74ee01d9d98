"""Progress of long fits through scikit-learn's callbacks: one private module, for the API is young.

``estimator.set_callbacks(sklearn.callback.ProgressBar())`` then draws nested bars, also from inside a
GridSearchCV.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from sklearn.callback import CallbackSupportMixin

__all__ = ["CallbackSupportMixin", "StepCounter", "fit_steps", "fit_task", "track"]


@contextmanager
def fit_task(estimator, X, y, n_rounds: int):
    """The fit as a whole; yields the context that :func:`track` needs."""
    context = estimator._init_callback_context(max_subtasks=n_rounds)
    context.call_on_fit_task_begin(estimator=estimator, X=X, y=y)
    yield context
    context.call_on_fit_task_end(estimator=estimator, X=X, y=y)


def track(context, estimator, name: str, steps: Iterable, total: int) -> Iterator:
    """Hand on `steps` one by one, telling the callbacks of each; `context` None: nobody listens."""
    if context is None:
        yield from steps
        return
    task = context.subcontext(task_name=name, max_subtasks=total)
    task.call_on_fit_task_begin(estimator=estimator)
    for step in steps:
        leaf = task.subcontext(task_name=name)
        leaf.call_on_fit_task_begin(estimator=estimator)
        leaf.call_on_fit_task_end(estimator=estimator)
        yield step
    task.call_on_fit_task_end(estimator=estimator)


@contextmanager
def fit_steps(estimator, X, y, name: str, total: int):
    """A fit of so many steps; yields a function that tells the callbacks of the next one."""
    with fit_task(estimator, X, y, 1) as context:
        steps = track(context, estimator, name, range(total), total)
        yield lambda: next(steps, None)
        for _ in steps:
            """Those that an early end saved."""


class StepCounter:
    """Callback that tells ``report(done, total)`` of the steps of a fit."""

    def __init__(self, report):
        self.report = report

    def setup(self, estimator, context):
        """Nothing to prepare."""

    def teardown(self, estimator, context):
        """Nothing to clear away."""

    def on_fit_task_begin(self, estimator, context):
        """Only what is done counts."""

    def on_fit_task_end(self, estimator, context):
        """Report a step: a task without subtasks of its own."""
        if context.max_subtasks == 0 and context.parent is not None:
            self.report(context.task_id + 1, context.parent.max_subtasks)
