"""Parameters of ``f2fd simulate``."""

from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, shared
from f2fd_core.config.parameter import INPUT, Config, param


@dataclass(frozen=True)
class SimulateConfig(Config):
    """Write a synthetic tomogram with its ground truth."""

    output: str = param(
        "", "Output folder", "Folder for the simulated volumes.", INPUT, positional=True
    )
    shape: Tuple[int, ...] = param(
        (96, 192, 192),
        "Shape",
        "Size of the volume, Z Y X.",
        INPUT,
        unit="voxels",
        ge=16,
        le=4096,
        length=3,
    )
    voxel_size: float = param(
        10.0,
        "Voxel size",
        "Voxel size of the volume.",
        INPUT,
        unit="Å",
        ge=shared.VOXEL_SIZES[0],
        le=shared.VOXEL_SIZES[1],
    )
    snr: float = param(
        0.1,
        "Signal-to-noise ratio",
        "Variance of the signal over the variance of the noise in the untilted projection.",
        INPUT,
        gt=0,
    )
    specimen: str = param(
        "cell",
        "Specimen",
        "What is in the volume.\n"
        "cell: vesicles, sheets, macromolecules and spheres.\n"
        "crowded: the same, a third of the volume full.\n"
        "spheres: spheres of several sizes only.\n"
        "shapes: random ellipsoids, solid and hollow.\n"
        "matter: these in a random density that fills the volume.\n"
        "empty: nothing but noise.",
        INPUT,
        choices=("cell", "crowded", "spheres", "shapes", "matter", "empty"),
    )
    tilt_range: float = param(
        60.0,
        "Tilt range",
        "Tilts run from minus to plus this angle.",
        INPUT,
        unit="degrees",
        gt=0,
        lt=90,
    )
    tilt_step: float = param(
        3.0, "Tilt step", "Angle between two tilts.", INPUT, unit="degrees", ge=0.1, le=30
    )
    thickness: int = param(
        0,
        "Specimen thickness",
        "Thickness of the specimen, which then also extends beyond the volume on both sides of the "
        "tilt axis: the projections contain what lies above, below and beside the volume, as in a "
        "cell. "
        "0: it ends with the volume.",
        INPUT,
        unit="voxels",
        ge=0,
        le=4096,
    )
    half_maps: str = param(
        "noise",
        "Half-maps",
        "How they are made.\n"
        "noise: both from all tilts, with independent noise, as from frames.\n"
        "tilts: from odd and from even tilts.",
        INPUT,
        choices=("noise", "tilts"),
    )
    defocus: float = param(
        3.0, "Defocus", "Defocus of the microscope (300 kV, Cs 2.7 mm).", INPUT, **filtering.DEFOCUS
    )
    sirt_iterations: int = param(
        0,
        "SIRT-like filter",
        "Reconstruct with IMOD's SIRT-like filter "
        "for this many iterations, which passes low frequencies and "
        "dampens high ones. 0: weighted back-projection.",
        INPUT,
        unit="iterations",
        ge=0,
        zero="off",
    )
    seed: int = shared.seed()
    overwrite: bool = shared.overwrite()
