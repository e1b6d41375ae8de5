"""The only file that names mesh axes: which letter of the alphabet is split over which of them."""

import logging
import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor", "context")
LETTER_TO_MESH: Mapping[str, tuple[str, ...]] = {
    "E": ("data",),
    "B": ("data", "fsdp"),
    "T": ("context",),
    "D": ("fsdp",),
    "F": ("tensor",),
    "N": ("tensor",),
    "K": ("tensor",),
    "G": ("tensor",),
    "V": ("tensor",),
}

log = logging.getLogger(__name__)


def make_mesh(*, data: int, fsdp: int, tensor: int, context: int) -> Mesh:
    """A mesh of data x fsdp x tensor x context devices, those of every process taken together.

    Raises:
      ValueError: more devices are asked for than JAX has.
    """
    shape = (data, fsdp, tensor, context)
    wanted = math.prod(shape)
    devices = jax.devices()
    if wanted > len(devices):
        axes = " x ".join(f"{a}={n}" for a, n in zip(MESH_AXES, shape, strict=True))
        raise ValueError(
            f"the mesh {axes} needs {wanted} devices, JAX has {len(devices)} "
            f"({devices[0].device_kind}); use a smaller mesh"
        )
    if wanted < len(devices) and jax.process_count() > 1:
        raise ValueError(
            f"the mesh has {wanted} of the {len(devices)} devices of {jax.process_count()} "
            "processes; use a mesh that has them all"
        )
    # Auto: the compiler places what the table leaves open. Explicit axes are JAX's default since
    # 0.7.
    types = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(shape, MESH_AXES, axis_types=types, devices=devices[:wanted])


def sharding(
    letters: Sequence[str], shape: Sequence[int], mesh: Mesh, *, name: str = ""
) -> NamedSharding:
    """Where an array of these letters lives.

    A mesh axis is used once per array, by the first letter whose length it divides; a letter that
    no axis divides is kept whole on every device, and that is logged under `name`.
    """
    used: set[str] = set()
    entries: list[tuple[str, ...] | None] = []
    for letter, length in zip(letters, shape, strict=True):
        wanted = tuple(
            axis for axis in LETTER_TO_MESH.get(letter.rstrip("'"), ()) if axis not in used
        )
        ways = math.prod(mesh.shape[axis] for axis in wanted)
        if wanted and length % ways == 0:
            used.update(wanted)
            entries.append(wanted)
            continue
        if ways > 1:
            log.warning(
                "%s: %s of length %d does not divide over %s=%d; another letter may, else it is "
                "kept whole on every device",
                name or "an array", letter, length, "x".join(wanted), ways,
            )  # fmt: skip
        entries.append(None)
    return NamedSharding(mesh, PartitionSpec(*entries))


def batch_sharding(
    mesh: Mesh, *, windows: int, context: int, packed: int | None = None
) -> NamedSharding:
    """Batches are split by window over data and fsdp, and by position over context; those of packed
    runs have an axis E in front, split over data where the runs divide over it.

    Raises:
      ValueError: the windows, or their positions, do not divide over the mesh.
    """
    front: tuple[tuple[str, ...] | None, ...] = ()
    over = {letter: LETTER_TO_MESH[letter] for letter in "BT"}
    if packed is not None:
        runs = LETTER_TO_MESH["E"]
        splits = packed % math.prod(mesh.shape[axis] for axis in runs) == 0
        front = (runs if splits else None,)
        if splits:
            over["B"] = tuple(axis for axis in over["B"] if axis not in runs)
    for letter, length, noun, devices in (
        ("B", windows, "windows", "data-parallel devices"),
        ("T", context, "positions", "context-parallel devices"),
    ):
        ways = math.prod(mesh.shape[axis] for axis in over[letter])
        if length % ways:
            raise ValueError(
                f"a batch of {length} {noun} is not divisible over {ways} {devices}; use a "
                f"multiple of {ways}"
            )
    return NamedSharding(mesh, PartitionSpec(*front, over["B"], over["T"]))
