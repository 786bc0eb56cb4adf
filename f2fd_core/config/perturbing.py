"""Parameters of a training that say how the noisy copies are made."""

from dataclasses import dataclass

from f2fd_core.config.learning import LearningConfig
from f2fd_core.config.parameter import PERTURBATION, UserError, param

PERTURBATIONS = ("noise_matched", "fourier_masks", "self2self", "noise2void", "noise2noise")

LEAST_NOISE_SCALE = 0.05


@dataclass(frozen=True)
class PerturbationConfig(LearningConfig):
    """The same with the perturbation."""

    perturbation: str = param(
        "noise_matched",
        "Perturbation",
        "How the noisy copies are made.\n"
        "noise_matched: adds noise that has the tomogram's own noise spectrum to one copy and "
        "subtracts it from the other.\n"
        "fourier_masks: drops blocks of Fourier coefficients and inverts signs (published).\n"
        "self2self: hides voxels and predicts them from the others.\n"
        "noise2void: replaces voxels by neighbours and predicts them.\n"
        "noise2noise: makes no copies; predicts one half-map from the other (as cryoCARE does).",
        PERTURBATION,
        choices=PERTURBATIONS,
        original="dataset",
    )
    noise_scale: float = param(
        0.0,
        "Noise scale",
        "How many times the tomogram's noise is added to the input; 1 / this is subtracted from "
        "the target. A lower value keeps more signal in the input; with a higher one, a small "
        "tomogram overfits later. 0: 0.75, rising to 1 the fewer Fourier coefficients the "
        "tomograms' noise fills.",
        PERTURBATION,
        ge=0,
        le=20,
        zero="automatic",
        advanced=True,
        only=("perturbation", "noise_matched"),
    )
    noise_profile: bool = param(
        True,
        "Noise varies in space",
        "Measure how the strength of the noise changes with depth and towards the borders, and let "
        "the noise of the copies change in the same way.",
        PERTURBATION,
        advanced=True,
        only=("perturbation", "noise_matched"),
    )
    point_probability: float = param(
        0.3,
        "Hidden points",
        "Probability that a voxel is hidden.",
        PERTURBATION,
        gt=0,
        lt=1,
        advanced=True,
        only=("perturbation", "self2self"),
    )
    block_probability: float = param(
        0.0,
        "Blocks instead of points",
        "Probability that blocks of voxels are hidden in a copy, instead of single ones.",
        PERTURBATION,
        ge=0,
        le=1,
        advanced=True,
        only=("perturbation", "self2self"),
        original="Vmask_probability",
    )
    blind_share: float = param(
        0.02,
        "Blind voxels",
        "Share of the voxels that are replaced by a neighbour and predicted.",
        PERTURBATION,
        gt=0,
        le=0.5,
        advanced=True,
        only=("perturbation", "noise2void"),
    )
    blind_reach: int = param(
        0,
        "Structured mask",
        "Number of voxels on either side of a blind one, along all three axes, that are also "
        "replaced: as far as the noise of neighbours is correlated. 0: only the voxel itself.",
        PERTURBATION,
        unit="voxels",
        ge=0,
        le=8,
        advanced=True,
        only=("perturbation", "noise2void"),
    )
    mask_probability: float = param(
        0.5,
        "Mask probability",
        "Probability that a block of Fourier coefficients or, in self2self, of voxels is dropped.",
        PERTURBATION,
        ge=0,
        lt=1,
        advanced=True,
        only=("perturbation", "fourier_masks", "self2self"),
        original="Vmask_pct",
    )
    inversion_probability: float = param(
        0.1,
        "Sign inversion probability",
        "Probability that a Fourier coefficient changes sign.",
        PERTURBATION,
        ge=0,
        le=1,
        advanced=True,
        only=("perturbation", "fourier_masks"),
        original="p",
    )
    block_size: int = param(
        8,
        "Block size",
        "Side of the blocks of Fourier coefficients or, in self2self, of voxels "
        "that are kept or dropped together.",
        PERTURBATION,
        unit="(Fourier) voxels",
        ge=1,
        le=1024,
        advanced=True,
        only=("perturbation", "fourier_masks", "self2self"),
        original="volumetric_scale_factor",
    )
    sphere_min: float = param(
        0.05,
        "Smallest kept sphere",
        "The sphere of low frequencies that is always kept holds at "
        "least this share of the spectrum's volume.",
        PERTURBATION,
        ge=0,
        le=0.5,
        advanced=True,
        only=("perturbation", "fourier_masks"),
    )
    sphere_max: float = param(
        0.10,
        "Largest kept sphere",
        "The sphere of low frequencies that is always kept holds at "
        "most this share of the spectrum's volume.",
        PERTURBATION,
        ge=0,
        le=0.5,
        advanced=True,
        only=("perturbation", "fourier_masks"),
    )
    pool_size: int = param(
        20,
        "Pool of samples",
        "Perturbed copies of the whole tomogram in a temporary file; each "
        "patch draws its pairs from them without replacement.",
        PERTURBATION,
        ge=2,
        le=1024,
        advanced=True,
        only=("perturbation", "fourier_masks"),
        original="total_samples",
    )
    renew_pool: bool = param(
        True,
        "Renew the pool",
        "Replace one copy of the pool by a new one at every step. The "
        "published program keeps the same copies throughout.",
        PERTURBATION,
        advanced=True,
        only=("perturbation", "fourier_masks"),
    )

    def check(self):
        super().check()
        if self.sphere_min > self.sphere_max:
            raise UserError(
                f"--sphere-min is {self.sphere_min:g}; expected at most "
                f"--sphere-max, which is {self.sphere_max:g}"
            )
        if 0 < self.noise_scale < LEAST_NOISE_SCALE:
            raise UserError(
                f"--noise-scale is {self.noise_scale:g}; expected 0 (automatic) or "
                f"at least {LEAST_NOISE_SCALE:g}"
            )
        if self.perturbation == "self2self" and self.block_size > self.patch_size:
            raise UserError(
                f"--block-size is {self.block_size}; expected at most "
                f"--patch-size, which is {self.patch_size}"
            )
        if self.perturbation == "fourier_masks" and self.pool_size < 2 * self.samples_per_patch:
            raise UserError(
                f"--pool-size is {self.pool_size}; expected at least "
                f"{2 * self.samples_per_patch}, twice --samples-per-patch"
            )
