"""Parameters of ``f2fd check``."""

from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, shared
from f2fd_core.config.networks import NETWORK_MULTIPLE, START_PERTURBATIONS
from f2fd_core.config.parameter import INPUT, PREDICTION, RUN, UserError, param

SETTINGS = (
    "defocus",
    "voxel_size",
    "rescale",
    "tile_size",
    "independent",
    "seed",
    "tilt_range",
    "precision",
)
"""On which a report depends."""


@dataclass(frozen=True)
class CheckConfig(shared.ModelConfig):
    """Report how far a model's result on a tomogram can be trusted, without ground truth."""

    model: str = shared.model()
    tomograms: Tuple[str, ...] = shared.tomograms(
        "Tomograms to check the model on (MRC or OME-Zarr): as they were before denoising."
    )
    output: str = shared.output(
        "Folder for report.html, report.json and, in a folder for each tomogram, maps and pictures."
    )
    half_maps: Tuple[str, ...] = shared.half_maps(
        "Two half-maps per tomogram (MRC), odd and even, in the order of the tomograms. The noise "
        "is measured from their difference instead of being estimated, which makes the report far "
        "more reliable. The tomograms themselves are then optional."
    )
    defocus: float = filtering.own_defocus()
    ctf: str = filtering.by_tomogram(INPUT, advanced=True)
    voxel_size: float = shared.voxel_size()
    tilt_range: float = shared.tilt_range()
    rescale: bool = shared.rescale(
        "Resample tomograms whose voxel size differs by more than 10 % from that of the model's "
        "training to that one, in Fourier space, as denoising with --rescale does. Everything is "
        "measured at that voxel size; the maps are on the tomogram's own grid."
    )
    tile_size: int = param(
        0,
        "Tile size",
        "Largest side of the tiles in which the tomogram is denoised, as for denoising. 0: as the "
        "model's preset says.",
        PREDICTION,
        unit="voxels",
        ge=0,
        le=4096,
        zero="automatic",
        advanced=True,
    )
    independent: bool = param(
        False,
        "Independent halves",
        "Also train a separate model on each half-map, with the settings of this model, and "
        "compare the halves that they denoise. This takes twice as long as the training.",
        RUN,
    )
    seed: int = shared.seed()
    resume: bool = param(
        False,
        "Skip finished",
        "Skip tomograms that were already checked with the same model and settings.",
        RUN,
    )
    overwrite: bool = shared.overwrite()
    device: str = shared.device()
    threads: int = shared.threads()
    precision: str = shared.precision()

    def check(self):
        super().check()
        if self.independent and self.names() and not self.half_maps:
            raise UserError(
                "--independent is given without --half-maps; expected two for each tomogram"
            )

    def settings(self):
        """What a report depends on beside the files' content, as a text."""
        return str([(name, getattr(self, name)) for name in SETTINGS])

    def refuse_model(self, trained):
        """Raise UserError if a model of the TrainConfig ``trained`` can't be checked."""
        if trained.perturbation not in START_PERTURBATIONS:
            raise UserError(
                f"{self.model} was trained with the perturbation "
                f"{trained.perturbation}, whose predictions are made from perturbed "
                "copies; expected a model of the perturbation "
                f"{' or '.join(START_PERTURBATIONS)}"
            )
        filtering.check_own_ctf(self, trained)
        multiple = NETWORK_MULTIPLE[trained.network]
        if self.tile_size % multiple:
            raise UserError(
                f"--tile-size is {self.tile_size}; expected a multiple of {multiple} "
                f"for the model's {trained.network} network"
            )
