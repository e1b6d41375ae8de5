"""Tasks of a sweep as jobs of Slurm, submitted by submitit."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from scaling.config import ConfigError
from scaling.sweep.child import carry_out, share

CLUSTERS = ("slurm", "local")


@dataclass(frozen=True)
class Job:
    """What a job does on its machine: one process, told before JAX starts."""

    command: tuple[str, ...]
    told: Mapping[str, str]

    def __call__(self) -> int:
        """Its exit status."""
        return carry_out(self.command, self.told)

    def checkpoint(self) -> Any:
        """What submitit queues again when the time of a job is over, or it gives way to another:
        the same, which goes on from the state that its process keeps."""
        import submitit

        return submitit.helpers.DelayedSubmission(self)


class OnSlurm:
    """Tasks that can begin at one time are an array job, with the parameters of `sweep.slurm`.
    Submitit keeps what it needs in `jobs/` of the work directory, which the owner alone can read.

    Raises:
      ConfigError: submitit is not installed, there is no Slurm here, or it has no such parameter.
    """

    def __init__(
        self,
        section: ConfigDict,
        *,
        workdir: Path,
        command: Callable[[str], Sequence[str]],
        retries: int,
    ) -> None:
        parameters = parameters_of(section)
        try:
            import submitit
            import submitit.core.utils
        except ImportError as error:
            raise ConfigError(
                f"--engine=slurm needs submitit ({error}); run: pip install 'scaling-laws[slurm]'"
            ) from error
        logging.getLogger("submitit").setLevel(logging.ERROR)
        # What lies there is run by the jobs.
        folder = workdir / "jobs"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        try:
            self._executor = submitit.AutoExecutor(
                folder, cluster=section.cluster, **{f"{section.cluster}_max_num_timeout": retries}
            )
            self._executor.update_parameters(**parameters)
        except (RuntimeError, NameError, ValueError) as error:
            raise ConfigError(
                f"Slurm cannot be used as sweep.slurm says: {' '.join(str(error).split())}; submit "
                "from a machine that has sbatch, and mend sweep.slurm"
            ) from error
        self._command, self._refused = command, submitit.core.utils.FailedJobError
        self._told = share(cpus=section.cpus_per_task, gpus=section.gpus_per_node)
        self._running: dict[str, Any] = {}
        place = f"partition {section.partition}" if section.partition else "its default partition"
        self.where = f"Slurm, {place}" if section.cluster == "slurm" else "jobs of this machine"

    def submit(self, tasks: Sequence[str]) -> None:
        """See `Engine`."""
        jobs = [Job(tuple(self._command(name)), self._told) for name in tasks]
        try:
            with self._executor.batch():
                submitted = [self._executor.submit(job) for job in jobs]
        except self._refused as error:
            raise ChildProcessError(
                f"Slurm took none of {len(jobs)} jobs: {' '.join(str(error).split())}; mend "
                "sweep.slurm and run the same command again"
            ) from error
        self._running |= dict(zip(tasks, submitted, strict=True))

    def ended(self) -> Mapping[str, str | None]:
        """See `Engine`."""
        done = [name for name, job in self._running.items() if job.done()]
        return {name: self._why(self._running.pop(name)) for name in done}

    def _why(self, job: Any) -> str | None:
        # Submitit would wait for the file of a job that was lost, each time for a quarter of a
        # minute.
        if job.paths.result_pickle.exists():
            failed = job.exception() is not None
            if not failed and job.result() == 0:
                return None
            what = "an error" if failed else f"status {job.result()}"
        elif job.state == "COMPLETED":
            return None
        else:
            what = f"state {job.state} and no result"
        return f"job {job.job_id} ended with {what}, see {job.paths.stderr}"

    def close(self) -> None:
        """See `Engine`."""
        for job in self._running.values():
            job.cancel(check=False)


def parameters_of(section: ConfigDict) -> dict[str, Any]:
    """What submitit is told of each job, by its own names.

    Raises:
      ConfigError: an unknown cluster, a number that is not positive, or an option that is not
        KEY=VALUE.
    """
    if section.cluster not in CLUSTERS:
        raise ConfigError(
            f"sweep.slurm.cluster is {section.cluster!r}; use slurm, or local for processes of "
            "this machine in its place"
        )
    for key in ("minutes", "cpus_per_task", "at_once"):
        if section[key] < 1:
            raise ConfigError(f"sweep.slurm.{key} is {section[key]}; use 1 at least")
    more: dict[str, str] = {}
    for text in section.more:
        key, equals, value = str(text).partition("=")
        if not key or not equals:
            raise ConfigError(
                f"sweep.slurm.more has {text!r}; give options of sbatch as KEY=VALUE, as in "
                "account=physics"
            )
        more[key.lstrip("-")] = value
    return {
        "name": "scaling",
        "timeout_min": section.minutes,
        "cpus_per_task": section.cpus_per_task,
        "gpus_per_node": section.gpus_per_node or None,
        "mem_gb": section.memory_gb,
        "slurm_partition": section.partition,
        "slurm_array_parallelism": section.at_once,
        "slurm_setup": list(section.setup) or None,
        "slurm_additional_parameters": more or None,
    }
