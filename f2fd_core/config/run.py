"""Parameters of ``f2fd run``."""

import dataclasses
from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, prediction, shared
from f2fd_core.config.parameter import INPUT, RUN, TRAINING, UserError, flag, param


@dataclass(frozen=True)
class RunConfig(filtering.FilteredConfig, shared.ResultsConfig):
    """Train on a few typical tomograms, denoise all, and report how far to trust the results."""

    tomograms: Tuple[str, ...] = shared.tomograms("Tomograms to denoise (MRC or OME-Zarr).")
    output: str = shared.output(
        "Folder for the model (training), the denoised tomograms (denoised) and the overview "
        "(overview.html)."
    )
    half_maps: Tuple[str, ...] = shared.half_maps(
        "Two half-maps per tomogram (MRC), odd and even, in the order of the tomograms: the noise "
        "is measured from their difference."
    )
    denoise_halves: bool = shared.denoise_halves()
    train_on: Tuple[str, ...] = param(
        (),
        "Train on",
        "Tomograms, among those given, to train the model on. Without it, typical ones are chosen "
        "by their spectra.",
        INPUT,
    )
    sampling_masks: Tuple[str, ...] = param(
        (),
        "Sampling masks",
        "auto: find the slab of each training tomogram that contains the specimen, by its "
        "contrast, and train only there; for tomograms that are empty above and below it.",
        INPUT,
        choices=shared.AUTOMATIC,
        length=1,
        advanced=True,
    )
    fill_wedge: bool = param(
        False,
        "Fill the missing wedge",
        "Also train a network that predicts what the tilts could not measure, and write "
        "<name>_filled.mrc; see 'f2fd train' and 'f2fd denoise'.",
        TRAINING,
    )
    tilt_range: float = shared.tilt_range(TRAINING, only=("fill_wedge",))
    predictions: int = prediction.predictions()
    std: bool = prediction.std()
    dtype: str = shared.dtype()
    result_name: str = shared.result_name()
    voxel_size: float = shared.voxel_size()
    rescale: bool = shared.rescale(
        "Resample tomograms whose voxel size differs by more than 10 % from that of the first "
        "training tomogram to that one, in Fourier space, and the results back."
    )
    steps: int = param(
        0,
        "Training steps",
        "Number of training steps. 0: until the loss on the validation cubes hardly falls.",
        TRAINING,
        ge=0,
        zero="auto",
    )
    watch: bool = param(
        False,
        "Watch",
        "Keep looking for new tomograms, as they come from a session at the microscope, and "
        "denoise each once its file is complete; the model is trained on the first ones. To end "
        "it, create a file named stop in the output folder. The same command continues the run.",
        RUN,
    )
    idle: float = param(
        0.0,
        "Idle time",
        "With --watch: end when no tomogram has come for this long. 0: never.",
        RUN,
        unit="minutes",
        ge=0,
        zero="never",
    )
    seed: int = shared.seed()
    resume: bool = param(
        False, "Resume", "Continue an interrupted run, and skip what is finished.", RUN
    )
    overwrite: bool = shared.overwrite()
    device: str = shared.device()
    threads: int = shared.threads()
    precision: str = shared.precision()

    def check(self):
        if self.watch and self.half_maps == shared.AUTOMATIC:
            # The rest is as without them.
            dataclasses.replace(self, half_maps=(), denoise_halves=False)
        elif self.watch and self.half_maps:
            raise UserError(
                f"--half-maps names {len(self.half_maps)} files with --watch; expected auto, "
                "since the tomograms are still to come"
            )
        else:
            super().check()
        filtering.check_defocus(self, self.deconvolve and bool(self.tomograms))
        for name in ("defocus", "ctf"):  # which denoising knows as those of a tomogram
            value = getattr(self, name)
            if value and not self.deconvolve:
                raise UserError(f"{flag(name)} is {value} without --deconvolve; expected both")
        if self.idle and not self.watch:
            raise UserError(f"--idle is {self.idle:g} without --watch; expected both")
