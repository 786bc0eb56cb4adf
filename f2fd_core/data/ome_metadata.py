"""What the metadata of an OME-Zarr image says of its first multiscale, and what F2Fd writes there.

Specification: https://ngff.openmicroscopy.org/0.4
"""

import os
from typing import Any, Dict, List, NamedTuple, Optional, Tuple

from f2fd_core.config import UserError, brief
from f2fd_core.runtime import files

UNITS = {"angstrom": 1.0, "nanometer": 10.0}
SPACE = ("z", "y", "x")
OWN = "f2fd"  # the key under which there are labels, as MRC files have them


class Level(NamedTuple):
    """The full resolution of an image: the ``dataset`` that holds it; how many axes ``before`` Z
    there are; the voxel ``size``, None if it is not known, and the ``origin``, (x, y, z) in Å; what
    was ``found`` of the size; the number of ``levels``."""

    dataset: str
    before: int
    size: Optional[Tuple[float, ...]]
    origin: Tuple[float, ...]
    found: str
    levels: int


def full_resolution(path: str, attributes: Dict[str, Any]) -> Level:
    """The :class:`Level` that the ``attributes`` of a group describe; raises UserError, naming
    the image ``path``, where that is no tomogram."""
    ome = attributes.get("ome", attributes)  # where version 0.5 has it
    try:
        image = ome["multiscales"][0]
        datasets, axes = image["datasets"], image["axes"]
        dataset = datasets[0]["path"]
        names = [axis if isinstance(axis, str) else axis["name"] for axis in axes]
    except (KeyError, IndexError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path} has no multiscales with axes and datasets in its metadata ({error!r}); "
            "expected an OME-Zarr image, version 0.4"
        )
    if not isinstance(dataset, str) or os.path.isabs(dataset) or ".." in dataset.split("/"):
        raise UserError(
            f"{path} has its full resolution at {brief(dataset)}; expected a path inside"
        )
    if tuple(names[-3:]) != SPACE:
        raise UserError(f"{path} has the axes {brief(names)}; expected z, y, x as the last three")
    size, origin, found = None, (0.0, 0.0, 0.0), "no scale"
    units = [axis.get("unit") if isinstance(axis, dict) else None for axis in axes[-3:]]
    odd = [unit for unit in units if not isinstance(unit, str) or unit not in UNITS]
    if odd:
        found = f"the unit {brief(odd[0])}" if odd[0] else "no unit"
    else:
        steps = [*_transforms(datasets[0]), *_transforms(image)]
        if any("scale" in step for step in steps):
            size, origin = _applied(path, steps, len(names), [UNITS[str(unit)] for unit in units])
            found = "voxel size {:g} x {:g} x {:g} Å".format(*size)
    found += " in its metadata" + (", and so no voxel size" if size is None else "")
    return Level(dataset, len(names) - 3, size, origin, found, len(datasets))


def _transforms(described) -> List[Dict[str, Any]]:
    found = described.get("coordinateTransformations") or []
    return [step for step in found if isinstance(step, dict)] if isinstance(found, list) else []


def _applied(path, steps, axes, units):
    """(size, origin) of a voxel, (x, y, z) in Å, after coordinate transformations."""
    size, origin = [1.0] * 3, [0.0] * 3
    for step in steps:
        for kind in ("scale", "translation"):
            if kind not in step:
                continue
            values = step[kind]
            try:
                *_, z, y, x = (float(value) for value in values)
            except (TypeError, ValueError):
                values = None
            if values is None or len(values) != axes:
                raise UserError(
                    f"{path} has the {kind} {brief(step[kind])} in its metadata; expected {axes} "
                    "numbers"
                )
            if kind == "scale":
                size = [one * by for one, by in zip(size, (z, y, x))]
                origin = [one * by for one, by in zip(origin, (z, y, x))]
            else:
                origin = [one + by for one, by in zip(origin, (z, y, x))]
    in_angstrom = [
        [value * unit for value, unit in zip(values, units)] for values in (size, origin)
    ]
    return tuple(tuple(values[::-1]) for values in in_angstrom)


def labels_of(attributes: Dict[str, Any]) -> Tuple[bytes, ...]:
    """The labels that F2Fd has written."""
    own = attributes.get(OWN)
    found = own.get("labels") if isinstance(own, dict) else None
    texts = found if isinstance(found, list) else []
    return tuple(text.encode("utf-8", "replace") for text in texts if isinstance(text, str))


def described(path, datasets, voxel_size, origin, labels) -> Dict[str, Any]:
    """The attributes of an image with a pyramid of ``datasets``, each binned 2 x 2 x 2 from the one
    before; ``voxel_size`` and ``origin`` are in Å, (x, y, z)."""
    levels = []
    for number, dataset in enumerate(datasets):
        scale = [float(size) * 2**number for size in voxel_size[::-1]]
        # The middle of the first voxel: of binned ones, that of the voxels they were made of.
        middle = [
            float(first) + (2**number - 1) / 2 * float(size)
            for first, size in zip(origin[::-1], voxel_size[::-1])
        ]
        steps: List[Dict[str, Any]] = [{"type": "scale", "scale": scale}]
        if any(middle):
            steps.append({"type": "translation", "translation": middle})
        levels.append({"path": dataset, "coordinateTransformations": steps})
    axes = [{"name": name, "type": "space", "unit": "angstrom"} for name in SPACE]
    image = {"version": "0.4", "name": files.stem(path), "axes": axes, "datasets": levels}
    texts = [label.decode("utf-8", "replace").strip("\0 ") for label in labels]
    return {"multiscales": [dict(image, type="mean")], OWN: {"labels": texts}}
