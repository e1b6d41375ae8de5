"""Tasks of a sweep as tasks of an existing Ray cluster."""

import logging
import os
import secrets
import socket
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from scaling.config import ConfigError
from scaling.sweep.child import GOODBYE_SECONDS, carry_out, share

REACH_SECONDS = 5.0
PROBE_SECONDS = 120.0


class OnRay:
    """Each task is one of Ray's, with the resources that `sweep.ray` asks for; `command` gives the
    words of the process that carries a task out. Ray's own retries are off: a task that is lost
    with its machine is reported as any other that has ended without its result.

    Raises:
      ConfigError: Ray is not installed, no cluster is at `address`, none of its machines has what
        is asked for, one does not see the work directory, or runs other code.
    """

    def __init__(
        self,
        section: ConfigDict,
        *,
        address: str,
        workdir: Path,
        command: Callable[[str], Sequence[str]],
        code_version: str,
    ) -> None:
        asked = resources_of(section)
        self._command = command
        self._told = share(cpus=section.num_cpus, gpus=section.num_gpus)
        self._running: dict[Any, str] = {}
        self._ray = _connected(address)
        self._carry_out = self._ray.remote(**asked, max_retries=0)(carry_out)
        try:
            self.where = self._checked(asked, workdir, code_version)
        except ConfigError:
            self._ray.shutdown()
            raise

    def _checked(self, asked: Mapping[str, Any], workdir: Path, code_version: str) -> str:
        """The machines that can carry out a task, in words."""
        ray = self._ray
        wanted = {"CPU": asked["num_cpus"], "GPU": asked["num_gpus"], **asked["resources"]}
        nodes = [node for node in ray.nodes() if node["Alive"]]
        able = [
            node
            for node in nodes
            if all(node["Resources"].get(name, 0.0) >= much for name, much in wanted.items())
        ]
        shown = ", ".join(f"{much:g} {name}" for name, much in wanted.items() if much)
        if not able:
            total = ", ".join(
                f"{much:g} {name}"
                for name, much in sorted(ray.cluster_resources().items())
                if "memory" not in name and ":" not in name
            )
            raise ConfigError(
                f"no machine of the cluster has {shown}, which sweep.ray asks for each task; the "
                f"cluster has {total} in {len(nodes)} machines; ask for less"
            )
        nonce = secrets.token_hex(16)
        path = workdir / f".seen-{nonce}"
        path.write_text(nonce)
        probe = ray.remote(num_cpus=0, max_retries=0, max_calls=1)(seen)
        answers = {}
        for node in able:
            there = ray.util.scheduling_strategies.NodeAffinitySchedulingStrategy(
                node["NodeID"], soft=False
            )
            reference = probe.options(scheduling_strategy=there).remote(str(path))
            answers[reference] = node["NodeManagerAddress"]
        try:
            for reference, machine in answers.items():
                _judge(self._answer(reference, machine), machine, nonce, workdir, code_version)
        finally:
            path.unlink()
        return f"{len(able)} machines of a Ray cluster, {shown} each task"

    def _answer(self, reference: Any, machine: str) -> Mapping[str, str | None]:
        try:
            answer: Mapping[str, str | None] = self._ray.get(reference, timeout=PROBE_SECONDS)
        except self._ray.exceptions.RayError as error:
            raise ConfigError(
                f"machine {machine} of the cluster cannot run this code: {_last_line(error)}; "
                "install the same scaling-laws there, with its extra ray"
            ) from error
        return answer

    def submit(self, tasks: Sequence[str]) -> None:
        """See `Engine`."""
        for name in tasks:
            self._running[self._carry_out.remote(self._command(name), self._told)] = name

    def ended(self) -> Mapping[str, str | None]:
        """See `Engine`."""
        if not self._running:
            return {}
        references = list(self._running)
        done, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return {self._running.pop(reference): self._why(reference) for reference in done}

    def _why(self, reference: Any) -> str | None:
        try:
            status = self._ray.get(reference)
        except self._ray.exceptions.RayError as error:
            return f"lost ({type(error).__name__})"
        return None if status == 0 else f"ended with status {status}, see what it says above"

    def close(self) -> None:
        """See `Engine`."""
        references = list(self._running)
        for reference in references:
            self._ray.cancel(reference)
        if references:
            self._ray.wait(references, num_returns=len(references), timeout=GOODBYE_SECONDS + 5)
        self._ray.shutdown()


def resources_of(section: ConfigDict) -> dict[str, Any]:
    """What Ray is asked for each task, as options of its tasks.

    Raises:
      ConfigError: an amount that is not positive, or a resource that is not NAME:AMOUNT.
    """
    if section.num_cpus <= 0 or section.num_gpus < 0:
        raise ConfigError(
            f"sweep.ray asks for {section.num_cpus} num_cpus and {section.num_gpus} num_gpus; ask "
            "for more than 0 and at least 0"
        )
    named: dict[str, float] = {}
    for text in section.resources:
        name, _, amount = str(text).rpartition(":")
        try:
            named[name] = float(amount)
        except ValueError:
            named[name] = 0.0
        if not name or not named[name] > 0:
            raise ConfigError(
                f"sweep.ray.resources has {text!r}; give NAME:AMOUNT, as in TPU-v5e-8-head:1"
            )
    return {"num_cpus": section.num_cpus, "num_gpus": section.num_gpus, "resources": named}


def seen(path: str) -> dict[str, str | None]:
    """What a machine of the cluster sees at `path`, and which code it runs."""
    from scaling.provenance import code_version

    file = Path(path)
    return {
        "nonce": file.read_text() if file.exists() else None,
        "code_version": code_version(),
    }


def _judge(
    answer: Mapping[str, str | None], machine: str, nonce: str, workdir: Path, code_version: str
) -> None:
    if answer["nonce"] != nonce:
        raise ConfigError(
            f"machine {machine} of the cluster does not see {workdir}; use a --workdir on a file "
            "system that all of them share"
        )
    if answer["code_version"] != code_version:
        raise ConfigError(
            f"machine {machine} of the cluster runs {answer['code_version']}, this one "
            f"{code_version}; install the same scaling-laws on both"
        )


def _connected(address: str) -> Any:
    """Ray, as a driver of the cluster at `address`."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
        import ray.exceptions
        import ray.util.scheduling_strategies
    except ImportError as error:
        raise ConfigError(
            f"--engine=ray needs Ray ({error}); run: pip install 'scaling-laws[ray]'"
        ) from error
    start = "start one with `ray start --head`, or give --ray_address=HOST:PORT"
    host, _, port = address.rpartition(":")
    if host and port.isdecimal() and "://" not in address:
        try:
            socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
        except OSError as error:
            raise ConfigError(f"no Ray cluster answers at {address} ({error}); {start}") from error
    try:
        ray.init(address=address, logging_level=logging.ERROR, log_to_driver=True)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"no Ray cluster at {address}: {_last_line(error)}; {start}") from error
    return ray


def _last_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
