"""A backend for joblib, and so for scikit-learn: ``Parallel`` runs on all nodes of the cluster.

from joblib import Parallel, delayed, parallel_config
from actors.util.joblib import register

register()
with parallel_config(backend="actors", n_jobs=-1):
Parallel()(delayed(work)(value) for value in values)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from joblib import register_parallel_backend
from joblib._parallel_backends import AutoBatchingMixin, ParallelBackendBase, SequentialBackend

from actors.util.executor import Executor, cpus

if TYPE_CHECKING:
    from collections.abc import Callable
    from concurrent.futures import Future


class ActorsBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """See `joblib.parallel.ParallelBackendBase`.

    Args:
        actor_options: of the actors that work, such as ``{"num_cpus": 1}``.
        others: joblib's own.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    def __init__(self, *, actor_options: dict[str, Any] | None = None, **others: Any) -> None:
        super().__init__(**others)
        self._options = actor_options
        self._executor: Executor | None = None

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """Returns the number of actors: of all CPUs of the cluster for -1, all but one for -2."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None:
            return 1
        return n_jobs if n_jobs > 0 else max(cpus() + 1 + n_jobs, 1)

    def configure(self, n_jobs: int = 1, parallel: Any = None, **_: Any) -> int:
        """Makes the actors; returns their number."""
        n_jobs = self.effective_n_jobs(n_jobs)
        self._executor = Executor(n_jobs, actor_options=self._options)
        self.parallel = parallel
        return n_jobs

    def submit(self, func: Callable[[], Any], callback: Callable[[Any], Any] | None = None) -> Future[Any]:
        """Runs a batch of calls in one of them."""
        assert self._executor is not None
        future = self._executor.submit(func)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    apply_async = submit  # its name before joblib 1.5

    def retrieve_result_callback(self, future: Future[Any]) -> Any:
        """Returns the results of a batch."""
        return future.result()

    def terminate(self) -> None:
        """Ends the actors."""
        if self._executor is not None:
            self._executor.shutdown(wait=False, cancel_futures=True)
            self._executor = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """Ends the actors, whatever they do; makes others where more is to come."""
        if self._executor is not None:
            self._executor.kill()
            self._executor = None
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel)

    def get_nested_backend(self) -> tuple[Any, Any]:
        """Returns what runs a ``Parallel`` inside a call: its own actor alone."""
        return SequentialBackend(nesting_level=(self.nesting_level or 0) + 1), None


def register(name: str = "actors") -> None:
    """Makes joblib know the backend, by this name."""
    register_parallel_backend(name, ActorsBackend)


def register_ray() -> None:
    """Makes joblib know it as ``"ray"``, for programs that were written for Ray."""
    register("ray")
