"""Parameters of ``f2fd denoise``."""

import dataclasses
import os
from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, prediction, shared
from f2fd_core.config.networks import NETWORK_MULTIPLE, START_PERTURBATIONS
from f2fd_core.config.parameter import INPUT, PREDICTION, RUN, UserError, param

NO_SETTINGS = (
    "model",
    "tomograms",
    "half_maps",
    "output",
    "result_name",
    "denoise_halves",
    "ctf",
    "std",
    "fill_wedge",
    "batch_size",
    "resume",
    "overwrite",
    "device",
    "threads",
    "deterministic",
    "compile",
)
"""What a denoised tomogram depends on by the files' content, or not at all."""


HALF_FOLDERS = "odd", "even"
"""The folders of denoised half-maps."""


@dataclass(frozen=True)
class DenoiseConfig(shared.ResultsConfig, shared.ModelConfig):
    """Denoise tomograms with a trained model."""

    model: str = shared.model()
    tomograms: Tuple[str, ...] = shared.tomograms(
        "Tomograms to denoise (MRC or OME-Zarr), of any size."
    )
    output: str = shared.output("Folder for the denoised tomograms and pictures.")
    half_maps: Tuple[str, ...] = shared.half_maps(
        "Two half-maps per tomogram, odd and even, the mean of which is denoised in its place. The "
        "result has the tomogram's name if that is given, else the odd half's."
    )
    denoise_halves: bool = shared.denoise_halves()
    defocus: float = filtering.own_defocus()
    ctf: str = filtering.by_tomogram(INPUT, advanced=True)
    voxel_size: float = shared.voxel_size()
    rescale: bool = shared.rescale(
        "Resample tomograms whose voxel size differs by more than 10 % from that of the model's "
        "training to that one, in Fourier space, and the results back to the tomogram's. Where the "
        "model's voxels are larger, the finest details are missing from the result."
    )

    predictions: int = prediction.predictions()
    batch_size: int = param(
        0,
        "Predictions per batch",
        "Number of copies of a tile that the network processes at once. Lower it if the GPU runs "
        "out of memory. 0: on the CPU as the model's preset says (default 1, published 10); on a "
        "GPU as many as fit into its free memory (published at most 10).",
        PREDICTION,
        ge=0,
        le=1024,
        zero="automatic",
        advanced=True,
        original="n_bernoulli_samples_prediction",
    )
    tile_size: int = param(
        0,
        "Tile size",
        "Largest side of the overlapping tiles in which the tomogram is denoised and which are "
        "blended. Lower it if the GPU runs out of memory. 0: on the CPU as the model's preset says "
        "(default 96, published 64); on a GPU what fits into its free memory (default up to 192).",
        PREDICTION,
        unit="voxels",
        ge=0,
        le=4096,
        zero="automatic",
        advanced=True,
    )
    pool_size: int = param(
        0,
        "Pool of samples",
        "Perturbed copies of the whole tomogram in a temporary file, for "
        "models trained with fourier_masks. 0: as the model's preset says (default 4, published "
        "20).",
        PREDICTION,
        ge=0,
        le=1024,
        zero="automatic",
        advanced=True,
        original="total_samples_prediction",
    )
    fill_wedge: bool = param(
        False,
        "Fill the missing wedge",
        "Also write <name>_filled.mrc: the denoised tomogram with what the model predicts in the "
        "directions that no tilt measured. These are predictions, not data; 'f2fd check' says how "
        "far to believe them. Half-maps are not filled. Needs a model that was trained with "
        "--fill-wedge.",
        PREDICTION,
    )
    tilt_range: float = shared.tilt_range(PREDICTION, only=("fill_wedge",))
    std: bool = prediction.std()
    dtype: str = shared.dtype()
    result_name: str = shared.result_name()
    region: Tuple[int, ...] = param(
        (),
        "Region",
        "Denoise only this part of each tomogram: its first voxel Z Y X, counted "
        "from 0, and its size Z Y X.",
        PREDICTION,
        unit="voxels",
        ge=0,
        length=6,
        advanced=True,
    )

    seed: int = shared.seed()
    resume: bool = param(
        False,
        "Skip finished",
        "Skip tomograms whose denoised file exists. If one was made by "
        "another model, from another tomogram or with other settings, the run is refused.",
        RUN,
    )
    overwrite: bool = shared.overwrite()
    device: str = shared.device()
    threads: int = shared.threads()
    precision: str = shared.precision()
    deterministic: bool = shared.deterministic()
    compile: bool = shared.compile()

    def settings(self):
        """What a denoised tomogram depends on beside the files' content, {field: value}, as far as
        that is not the default: so that what a later version adds changes nothing."""
        defaults = {item.name: item.default for item in dataclasses.fields(self)}
        return {
            name: value
            for name, value in dataclasses.asdict(self).items()
            if name not in NO_SETTINGS and value != defaults[name]
        }

    def of_halves(self):
        """The configurations that denoise the odd and the even half-maps by themselves, if they are
        to be."""
        folders = HALF_FOLDERS if self.denoise_halves else ()
        return [
            dataclasses.replace(
                self,
                tomograms=self.half_maps[number::2],
                half_maps=(),
                denoise_halves=False,
                fill_wedge=False,
                output=os.path.join(self.output, folder),
            )
            for number, folder in enumerate(folders)
        ]

    def for_model(self, train_config):
        """Replace every 0 by the value of the model's preset and check against the model."""
        if self.half_maps and train_config.perturbation not in START_PERTURBATIONS:
            raise UserError(
                f"--half-maps names {len(self.half_maps)} files; expected none for a "
                f"model trained with the perturbation {train_config.perturbation}"
            )
        filtering.check_own_ctf(self, train_config)
        filled = dataclasses.replace(
            self,
            **{
                name: getattr(self, name) or value
                for name, value in prediction.prediction_defaults(train_config).items()
            },
        )
        multiple = NETWORK_MULTIPLE[train_config.network]
        if filled.tile_size % multiple:
            raise UserError(
                f"--tile-size is {filled.tile_size}; expected a multiple of "
                f"{multiple} for the model's {train_config.network} network"
            )
        return filled
