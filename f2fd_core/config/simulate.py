"""Parameters of ``f2fd simulate``."""

import math
from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, shared
from f2fd_core.config.parameter import INPUT, Config, UserError, param


@dataclass(frozen=True)
class SimulateConfig(Config):
    """Write a synthetic tomogram with its ground truth."""

    output: str = shared.output("Folder for the simulated volumes.", positional=True)
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
        "crowded: the same, with a third of the volume filled.\n"
        "spheres: spheres of several sizes only.\n"
        "shapes: random ellipsoids, solid and hollow.\n"
        "matter: these in a random density that fills the volume.\n"
        "empty: noise only.",
        INPUT,
        choices=("cell", "crowded", "spheres", "shapes", "matter", "empty"),
    )
    tilt_range: Tuple[float, ...] = param(
        (60.0,),
        "Tilt range",
        "Tilts run from minus to plus this angle, or from the first to the second of two: -50 65, "
        "say, as of a lamella with a pre-tilt.",
        INPUT,
        unit="degrees",
        gt=-90,
        lt=90,
    )
    tilt_step: float = param(
        3.0,
        "Tilt step",
        "Angle between two tilts, which are its multiples.",
        INPUT,
        unit="degrees",
        ge=0.1,
        le=30,
    )
    thickness: int = param(
        0,
        "Specimen thickness",
        "Thickness of a specimen that extends beyond the volume, also on both sides of the tilt "
        "axis: the projections contain what lies above, below and beside the volume, as in a cell. "
        "0: the specimen ends with the volume.",
        INPUT,
        unit="voxels",
        ge=0,
        le=4096,
    )
    half_maps: str = param(
        "noise",
        "Half-maps",
        "How the half-maps are made.\n"
        "noise: both from all tilts, with independent noise, as from odd and even frames.\n"
        "tilts: from odd and even tilts.",
        INPUT,
        choices=("noise", "tilts"),
    )
    dose: float = param(
        0.0,
        "Dose",
        "Dose of each tilt. The series begins with the untilted one and goes to both sides in "
        "turn; signal is lost to radiation damage, and each tilt is weighted by what is left of it "
        "at each frequency (dose weighting). 0: neither.",
        INPUT,
        unit="e/Å²",
        ge=0,
        le=100,
        zero="off",
    )
    defocus: float = param(
        3.0, "Defocus", "Defocus of the microscope (300 kV, Cs 2.7 mm).", INPUT, **filtering.DEFOCUS
    )
    reconstruction: str = param(
        "wbp",
        "Reconstruction",
        "How the volume is made of the tilts.\n"
        "wbp: weighted back-projection, as in IMOD.\n"
        "insertion: the tilts' Fourier transforms are inserted into that of the volume and divided "
        "by the sum of their weights, as in WarpTools.\n"
        "ctf-corrected: the same with the CTF corrected, as in RELION: the transforms are "
        "multiplied by the CTF and divided by the sum of its squares plus a constant.",
        INPUT,
        choices=("wbp", "insertion", "ctf-corrected"),
    )
    sirt_iterations: int = param(
        0,
        "SIRT-like filter",
        "Reconstruct with IMOD's SIRT-like filter, which passes low frequencies and dampens high "
        "ones, for this many iterations. 0: no such filter.",
        INPUT,
        unit="iterations",
        ge=0,
        zero="off",
        only=("reconstruction", "wbp"),
    )
    seed: int = shared.seed()
    overwrite: bool = shared.overwrite()

    def check(self):
        given = " ".join(f"{angle:g}" for angle in self.tilt_range)
        if len(self.tilt_range) not in (1, 2):
            raise UserError(
                f"--tilt-range has {len(self.tilt_range)} values; expected one angle, or two"
            )
        if len(self.tilt_range) == 1 and self.tilt_range[0] <= 0:
            raise UserError(
                f"--tilt-range is {given}; expected above 0, or two angles, from and to"
            )
        least = 2 if self.half_maps == "tilts" else 1
        if len(self.tilts()) < least:
            raise UserError(
                f"--tilt-range is {given} and --tilt-step is {self.tilt_step:g}; expected at least "
                f"{least} multiples of the step in the range, the lower angle first"
            )
        if self.sirt_iterations and self.reconstruction != "wbp":
            raise UserError(
                f"--sirt-iterations is {self.sirt_iterations} and --reconstruction is "
                f"{self.reconstruction}; expected 0 iterations, or wbp"
            )

    def tilts(self):
        """The tilt angles in degrees, ascending: the multiples of the step in the range."""
        lowest, highest = self.tilt_range[0], self.tilt_range[-1]
        if len(self.tilt_range) == 1:
            lowest = -highest
        first = math.ceil(lowest / self.tilt_step - 1e-6)
        last = math.floor(highest / self.tilt_step + 1e-6)
        return [step * self.tilt_step for step in range(first, last + 1)]
