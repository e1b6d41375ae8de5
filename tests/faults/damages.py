"""Damage to the files of a checkpoint, and disks that fill up while one is written."""

import os
import resource
import shutil
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
from absl import logging
from arrays import Flat, flat, same

from scaling.train import checkpoint
from scaling.train.checkpoint import MANIFEST, CheckpointError, Checkpoints
from scaling.train.program import TrainState

IDENTITY = {"config": {"width": 16}, "data_hash": "ab", "seed": 0, "code_version": "1"}
OLDER, NEWER = 1, 2
RESTORE_SECONDS = 5.0


def state(step: int) -> TrainState:
    """40,000 parameters and their moments, every bit of them random as after training."""
    keys = jax.random.split(jax.random.key(step), 3)
    arrays = [jax.random.normal(key, (4, 50, 200)) for key in keys]
    zero = jnp.zeros((), jnp.int32)
    counters = dict.fromkeys(("skipped", "skipped_in_row"), zero)
    moments = {"mu": {"up": arrays[1]}, "nu": {"up": arrays[2]}}
    return TrainState(
        step=jnp.asarray(step, jnp.int32), params={"up": arrays[0]}, optimizer=moments, **counters
    )


def opened(folder: Path) -> Checkpoints:
    return Checkpoints(folder, keep=2, identity=IDENTITY)


def shapes() -> TrainState:
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), state(0))


class Patient(NamedTuple):
    """A folder of two whole steps, copied anew for every damage."""

    pristine: Path
    folder: Path
    states: dict[int, Flat]

    @classmethod
    def made(cls, root: Path) -> "Patient":
        with opened(root / "pristine") as checkpoints:
            for step in (OLDER, NEWER):
                checkpoints.save(state(step))
        states = {step: flat(state(step)._asdict()) for step in (OLDER, NEWER)}
        return cls(root / "pristine", root / "damaged", states)

    def reset(self) -> None:
        if self.folder.exists():
            shutil.rmtree(self.folder)
        shutil.copytree(self.pristine, self.folder)

    def files(self, step: int) -> list[Path]:
        return sorted(path for path in (self.folder / str(step)).rglob("*") if path.is_file())

    def verdict(self, warnings: list[str], *, naming: str = "") -> str:
        """What our own restore makes of the damage; a step back must be logged, `naming` the
        file."""
        warnings.clear()
        try:
            with opened(self.folder) as checkpoints:
                found = checkpoints.restore(shapes())
        except CheckpointError:
            return "refused"
        except Exception as error:
            return f"raised {type(error).__name__}"
        if found is None:
            return "silent start from zero"
        if same(flat(found._asdict()), self.states[NEWER]):
            return "harmless"
        if not same(flat(found._asdict()), self.states[OLDER]):
            return "silently wrong"
        step = str(self.folder / str(NEWER))
        named = any(step in warning and naming in warning for warning in warnings)
        return "named and stepped back" if named else "silently stepped back"

    def verdict_of_orbax(self) -> str:
        """What Orbax makes of the same damage: its newest step."""
        try:
            with ocp.StandardCheckpointer() as reader:
                found = reader.restore(self.folder / str(NEWER), shapes()._asdict())
        except Exception:
            return "raised"
        return "harmless" if same(flat(found), self.states[NEWER]) else "silently wrong"


@contextmanager
def warnings_heard() -> Iterator[list[str]]:
    """What is logged by way of warning."""
    heard: list[str] = []

    def listen(record: Any) -> bool:
        heard.append(record.getMessage())
        return False

    logger = logging.get_absl_logger()
    logger.addFilter(listen)
    try:
        yield heard
    finally:
        logger.removeFilter(listen)


def pick(files: Sequence[Path], rng: np.random.Generator, *, by_bytes: bool = False) -> Path:
    sizes = np.array([path.stat().st_size for path in files], float)
    odds = sizes / sizes.sum() if by_bytes else None
    return files[rng.choice(len(files), p=odds)]


def flip(path: Path, rng: np.random.Generator) -> None:
    content = np.fromfile(path, np.uint8)
    content[rng.integers(len(content))] ^= np.uint8(1 << rng.integers(8))
    content.tofile(path)


def flipped(count: int, patient: Patient, rng: np.random.Generator) -> dict[str, Any]:
    """One bit of the newest step, a file drawn by its bytes; every tenth time each file alike."""
    ours: Counter[str] = Counter()
    orbax: Counter[str] = Counter()
    slowest = 0.0
    with warnings_heard() as warnings:
        for number in range(count):
            patient.reset()
            files = [path for path in patient.files(NEWER) if path.stat().st_size]
            path = pick(files, rng, by_bytes=number % 10 > 0)
            flip(path, rng)
            # Orbax alone has no manifest of hashes: a bit of ours cannot harm it.
            orbax["not its file" if path.name == MANIFEST else patient.verdict_of_orbax()] += 1
            began = time.perf_counter()
            name = path.relative_to(patient.folder / str(NEWER)).as_posix()
            ours[patient.verdict(warnings, naming=name)] += 1
            slowest = max(slowest, time.perf_counter() - began)
    return {"flips": count, "ours": dict(ours), "orbax_alone": dict(orbax),
            "slowest_restore_seconds": slowest,
            "passed": not silent(ours) and slowest <= RESTORE_SECONDS}  # fmt: skip


def silent(verdicts: Mapping[str, int]) -> int:
    return sum(verdicts.values()) - sum(
        verdicts.get(good, 0) for good in ("harmless", "named and stepped back")
    )


KINDS = ("truncate", "delete", "zero", "swap", "stale", "garbage", "unmark", "empty")


def hurt(kind: str, patient: Patient, rng: np.random.Generator) -> None:
    """Damage the newest step in one way."""
    files, marker = patient.files(NEWER), patient.folder / str(NEWER) / MANIFEST
    path = pick([path for path in files if path.stat().st_size], rng)
    size = path.stat().st_size
    if kind == "truncate":
        os.truncate(path, rng.integers(size))
    elif kind == "delete":
        path.unlink()
    elif kind == "zero":
        path.write_bytes(bytes(size))
    elif kind == "swap":
        other = pick([file for file in files if file != path], rng)
        one, two = path.read_bytes(), other.read_bytes()
        path.write_bytes(two), other.write_bytes(one)
    elif kind == "stale":
        shutil.copy(pick(patient.files(OLDER), rng), path)
    elif kind == "garbage":
        marker.write_bytes(rng.bytes(50) if rng.random() < 0.5 else b'{"schema": 1, "files": {')
    elif kind == "unmark":
        marker.unlink()
    else:
        for file in files:
            file.unlink()


def damaged(count: int, patient: Patient, rng: np.random.Generator) -> dict[str, Any]:
    """Damage to whole files of the newest step; and every tenth time to the older one as well."""
    ours: dict[str, Counter[str]] = {kind: Counter() for kind in KINDS}
    orbax: Counter[str] = Counter()
    both: Counter[str] = Counter()
    with warnings_heard() as warnings:
        for number in range(count):
            kind = KINDS[number % len(KINDS)]
            patient.reset()
            hurt(kind, patient, rng)
            orbax[patient.verdict_of_orbax()] += 1
            ours[kind][patient.verdict(warnings)] += 1
            if number % 10 == 0:
                patient.reset()
                for step in (OLDER, NEWER):
                    if number % 20:
                        (patient.folder / str(step) / MANIFEST).unlink()
                    else:
                        flip(max(patient.files(step), key=lambda path: path.stat().st_size), rng)
                both[patient.verdict(warnings)] += 1
    wrong = sum(silent(verdicts) for verdicts in ours.values())
    return {"damages": count, "ours": {kind: dict(found) for kind, found in ours.items()},
            "orbax_alone": dict(orbax), "both_steps": dict(both),
            "passed": not wrong and set(both) <= {"refused"}}  # fmt: skip


# Disks that fill up.


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[str]:
    """A disk of so many bytes at `folder`, or where none can be mounted a limit on every file."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    mounted = subprocess.run(mount, capture_output=True, check=False).returncode == 0
    try:
        yield "tmpfs" if mounted else "RLIMIT_FSIZE"
    finally:
        if mounted:
            subprocess.run(["umount", str(folder)], check=True)


@contextmanager
def room_for(free: int, folder: Path, kind: str) -> Iterator[None]:
    """Let writes fail beyond `free` bytes: of the disk, or of one file."""
    if kind == "tmpfs":
        ballast = folder / "ballast"
        ballast.write_bytes(bytes(max(0, shutil.disk_usage(folder).free - free)))
        yield
        ballast.unlink()
        return
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (free, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def filled(count: int, root: Path) -> dict[str, Any]:
    """Let the disk be full after more and more bytes of a save, from none to all of them.

    The save does not ask for room first: the space is gone only when it has begun.
    """
    found: Counter[str] = Counter()
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(state(0)))
    asked, checkpoint.ROOM = checkpoint.ROOM, 0
    folder = root / "disk"
    try:
        with small_disk(folder, 16 * size) as kind:
            for free in np.linspace(0, 2 * size, count).astype(int) // 4096 * 4096:
                for verdict in _full_at(int(free), folder / "checkpoints", folder, kind):
                    found[verdict] += 1
                shutil.rmtree(folder / "checkpoints")
    finally:
        checkpoint.ROOM = asked
    good = sum(found[name] for name in ("refused, older intact", "saved and there"))
    return {"points": count, "disk": kind, **found,
            "passed": good == found["resumed when space returned"] == count}  # fmt: skip


def _full_at(free: int, folder: Path, disk: Path, kind: str) -> Iterator[str]:
    with opened(folder) as checkpoints:
        checkpoints.save(state(OLDER))
    said = OLDER
    with room_for(free, disk, kind):
        try:
            with opened(folder) as checkpoints:
                checkpoints.restore(shapes())
                checkpoints.save(state(NEWER))
                checkpoints.wait()
                said = NEWER
        except OSError:
            pass
        except Exception as error:
            yield f"raised {type(error).__name__}"
    there = _restored(folder)
    if there != said:
        yield f"said {said}, there is {there}"
    else:
        yield "saved and there" if said == NEWER else "refused, older intact"
    with opened(folder) as checkpoints:
        checkpoints.restore(shapes())
        checkpoints.save(state(NEWER))
    if _restored(folder) == NEWER:
        yield "resumed when space returned"


def _restored(folder: Path) -> int | None:
    """The step that comes back in every bit, None if none does."""
    with opened(folder) as checkpoints:
        found = checkpoints.restore(shapes())
    step = None if found is None else int(found.step)
    if found is None or not same(flat(found._asdict()), flat(state(int(found.step))._asdict())):
        return None
    return step
