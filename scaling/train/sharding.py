"""The only file that names mesh axes: which letter of the alphabet is split over which of them."""

import math
from collections.abc import Mapping, Sequence

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

MESH_AXES = ("data", "fsdp", "tensor")
LETTER_TO_MESH: Mapping[str, tuple[str, ...]] = {
    "B": ("data", "fsdp"),
    "D": ("fsdp",),
    "F": ("tensor",),
    "N": ("tensor",),
    "V": ("tensor",),
}


def make_mesh(*, data: int, fsdp: int, tensor: int) -> Mesh:
    """A mesh of data x fsdp x tensor devices.

    Raises:
      ValueError: more devices are asked for than JAX has.
    """
    wanted = data * fsdp * tensor
    devices = jax.devices()
    if wanted > len(devices):
        raise ValueError(
            f"the mesh data={data} x fsdp={fsdp} x tensor={tensor} needs {wanted} devices, JAX has "
            f"{len(devices)} ({devices[0].device_kind}); use a smaller mesh"
        )
    # Auto: the compiler places what the table leaves open. Explicit axes are JAX's default since
    # 0.7.
    types = (AxisType.Auto,) * len(MESH_AXES)
    return jax.make_mesh(
        (data, fsdp, tensor), MESH_AXES, axis_types=types, devices=devices[:wanted]
    )


def sharding(letters: Sequence[str], shape: Sequence[int], mesh: Mesh) -> NamedSharding:
    """Where an array of these letters lives.

    A mesh axis is used once per array, by the first letter whose length it divides; a letter that
    no axis divides is kept whole on every device.
    """
    used: set[str] = set()
    entries: list[tuple[str, ...] | None] = []
    for letter, length in zip(letters, shape, strict=True):
        wanted = LETTER_TO_MESH.get(letter.rstrip("'"), ())
        wanted = tuple(axis for axis in wanted if axis not in used)
        if not wanted or length % math.prod(mesh.shape[axis] for axis in wanted):
            entries.append(None)
        else:
            used.update(wanted)
            entries.append(wanted)
    return NamedSharding(mesh, PartitionSpec(*entries))


def batch_sharding(mesh: Mesh, *, windows: int) -> NamedSharding:
    """Batches are split by window, whatever their other axes.

    Raises:
      ValueError: the windows of a batch do not divide over the mesh.
    """
    ways = math.prod(mesh.shape[axis] for axis in LETTER_TO_MESH["B"])
    if windows % ways:
        raise ValueError(
            f"a batch of {windows} windows is not divisible over {ways} data-parallel devices; "
            f"use a multiple of {ways}"
        )
    return NamedSharding(mesh, PartitionSpec(LETTER_TO_MESH["B"]))
