"""Parameters of ``f2fd train``."""

from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, published, shared
from f2fd_core.config.migrations import migrate
from f2fd_core.config.networks import START_PERTURBATIONS, NetworkConfig
from f2fd_core.config.parameter import INPUT, RUN, TRAINING, UserError, param


@dataclass(frozen=True)
class TrainConfig(NetworkConfig, filtering.FilteredConfig, shared.TomogramsConfig):
    """Train one model on one or several tomograms."""

    tomograms: Tuple[str, ...] = shared.tomograms(
        "Tomograms to train on (MRC or OME-Zarr), of any size; their sizes may differ."
    )
    output: str = shared.output("Folder for the model, checkpoints, log and pictures.")
    ground_truth: Tuple[str, ...] = param(
        (),
        "Ground truth",
        "Noise-free volumes, one per tomogram and in the same order. Used for "
        "the scores in the log (SSIM, PSNR), never for training.",
        INPUT,
        advanced=True,
    )
    half_maps: Tuple[str, ...] = shared.half_maps(
        "Two half-maps per tomogram (MRC), odd and even, in the order of the tomograms. The noise "
        "is measured from their difference instead of being estimated, and the network learns from "
        "their mean (perturbation noise_matched), or to predict one half from the other "
        "(noise2noise). noise_matched leaves out those that differ by more than noise, as of odd "
        "and even tilts of a thick specimen. The tomograms themselves are then optional."
    )
    sampling_masks: Tuple[str, ...] = param(
        (),
        "Sampling masks",
        "Volumes (MRC, above 0.5 inside), one per tomogram and in the same order: the network "
        "learns only from patches of which at least a twentieth is inside. This keeps empty "
        "regions out of the training. auto: the slab in which the specimen lies, found in each "
        "tomogram by its contrast and written to masks/ with a picture.",
        INPUT,
        advanced=True,
    )
    voxel_size: float = shared.voxel_size()
    rescale: bool = shared.rescale(
        "Resample tomograms whose voxel size differs by more than 10 % from that of the first to "
        "that one, in Fourier space. Without it they are refused."
    )
    clip: bool = param(
        True,
        "Robust intensities",
        "Leave slow changes of the background, constant borders, beads, hot voxels and vacuum out "
        "of the standardisation. Off: standardise by the mean and standard deviation of all "
        "voxels.",
        INPUT,
        advanced=True,
        original="clip",
    )

    fill_wedge: bool = param(
        False,
        "Learn to fill the missing wedge",
        "After the training, train a second network to predict what the tilts could not measure, "
        "from the denoised tomogram, rotated by 90 degrees about the tilt axis. It takes twice as "
        "long again. 'f2fd denoise --fill-wedge' then also writes filled tomograms, and 'f2fd "
        "check' says how far to believe them.",
        TRAINING,
        advanced=True,
    )
    tilt_range: float = shared.tilt_range(TRAINING, only=("fill_wedge",))

    seed: int = shared.seed()
    checkpoint_every: int = param(
        100,
        "Checkpoint every",
        "Steps between two checkpoints, from which a stopped run can be "
        "resumed; the pictures are drawn then, too, but for no more than a tenth of the time.",
        RUN,
        unit="steps",
        ge=1,
        advanced=True,
    )
    resume: bool = param(
        False, "Resume", "Continue from the newest checkpoint in the output folder.", RUN
    )
    overwrite: bool = shared.overwrite()
    device: str = shared.device()
    threads: int = shared.threads()
    precision: str = shared.precision()
    deterministic: bool = shared.deterministic()
    compile: bool = shared.compile()

    @classmethod
    def presets(cls):
        return {"published": published.SAMPLE_RUN}

    def check(self):
        super().check()
        self._check_files()
        names = self.names()
        if names and self.schedule == "cosine" and self.automatic():
            raise UserError(
                "--schedule is cosine and --steps 0 (auto); expected a number of steps "
                "or another schedule"
            )
        filtering.check_defocus(self, self.deconvolve and bool(names))

    def _check_files(self):
        names = self.names()
        if names and self.perturbation == "noise2noise" and not self.half_maps:
            raise UserError(
                "--perturbation is noise2noise and --half-maps names no files; expected two a "
                "tomogram"
            )
        if self.half_maps and self.perturbation not in START_PERTURBATIONS:
            raise UserError(
                f"--perturbation is {self.perturbation} and --half-maps names "
                f"{len(self.half_maps)} files; expected "
                f"{' or '.join(START_PERTURBATIONS)} with half-maps"
            )
        if self.fill_wedge and (self.perturbation != "noise_matched" or self.rescale):
            raise UserError(
                f"--fill-wedge is given with "
                f"{'--rescale' if self.rescale else '--perturbation ' + self.perturbation}; "
                "expected tomograms of one voxel size and the perturbation noise_matched"
            )
        if self.ground_truth and len(self.ground_truth) != len(names):
            raise UserError(
                f"--ground-truth names {len(self.ground_truth)} volumes; expected "
                f"{len(names)}, one for each tomogram"
            )
        masks = () if self.finds_specimen() else self.sampling_masks
        if self.rescale and (masks or self.ground_truth):
            raise UserError(
                "--rescale is given beside --sampling-masks or --ground-truth; expected neither, "
                "since these are not resampled"
            )
        if masks and len(masks) != len(names):
            raise UserError(
                f"--sampling-masks names {len(self.sampling_masks)} volumes; "
                f"expected {len(names)}, one for each tomogram"
            )

    def finds_specimen(self):
        """Whether the sampling masks are found in the tomograms."""
        return self.sampling_masks == shared.AUTOMATIC

    @classmethod
    def stored(cls, settings):
        """The TrainConfig of a model of any version by its ``settings``, a dictionary.

        Raises UserError for settings that are none.
        """
        return cls.create(migrate(settings))
