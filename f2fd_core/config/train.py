"""Parameters of ``f2fd train`` and its presets."""

from dataclasses import dataclass
from typing import Tuple

from f2fd_core.config import filtering, shared
from f2fd_core.config.migrations import migrate
from f2fd_core.config.parameter import INPUT, NETWORK, PERTURBATION, RUN, TRAINING, UserError, param

SAMPLE_RUN = dict(
    epochs=50,
    inversion_probability=0.1,
    mask_probability=0.5,
    dropout=0.8,
    block_size=8,
    pool_size=20,
    renew_pool=False,
    samples_per_patch=6,
    batch_size=2,
    patch_size=64,
    features=48,
    optimizer="adam",
    learning_rate=1e-4,
    clip=True,
    tv_weight=0.0,
    perturbation="fourier_masks",
    network="published",
    gradient_clip=0.0,
    loss="l2norm",
    schedule="plateau",
    averaging=0.0,
    stop_patience=100,
    augmentation="published",
    patch_shift=10,
    sphere_min=0.05,
    sphere_max=0.10,
    start="random",
)
"""The published program's sample run."""

PERTURBATIONS = ("noise_matched", "fourier_masks", "self2self", "noise2void", "noise2noise")

NETWORK_MULTIPLE = {"compact": 8, "published": 32, "unshuffled": 8}
"""Patch and tile sides must be a multiple of this: how much coarser the lowest level is."""

LEAST_NOISE_SCALE = 0.05

NETWORK_FEATURES = {"compact": 8, "published": 48, "unshuffled": 16}
"""What 0 features means. Scipion remembers a choice by its place: new networks come last."""

START_NETWORK = ("unshuffled", NETWORK_FEATURES["unshuffled"])
"""Network and features of the pretrained weights."""
START_PERTURBATIONS = ("noise_matched", "noise2noise")
"""Whose networks learn what the pretrained weights did: to take the noise from a whole patch."""
START_PATCH = 48
"""Side of the patches that it learned from. In smaller ones, which are all border, what it knows of
larger surroundings goes astray (docs/method.md)."""


@dataclass(frozen=True)
class TrainConfig(shared.TomogramsConfig):
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
        "(noise2noise). The tomograms themselves are then optional."
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

    preset: str = param(
        "default",
        "Method",
        "Other options override it.\n"
        "default: noise-matched perturbation with the unshuffled network.\n"
        "published: all values of the published program's sample run; takes far longer.",
        TRAINING,
        choices=("default", "published"),
    )
    initial_model: str = param(
        "",
        "Initial model",
        "Model file to start from, trained on similar tomograms. It must have the network chosen "
        "here.",
        TRAINING,
        advanced=True,
    )
    start: str = param(
        "automatic",
        "Starting weights",
        "What to start from without an initial model.\n"
        "automatic: pretrained for the perturbations noise_matched and noise2noise with the "
        "unshuffled network of 16 features and patches of at least 48 voxels, as in their own "
        "training; otherwise random.\n"
        "random: random weights.\n"
        "pretrained: weights that come with F2Fd, trained to denoise simulated tomograms of random "
        "ellipsoids, solid and hollow (for the unshuffled network with 16 features); they save "
        "most of the steps.",
        TRAINING,
        choices=shared.STARTS,
    )
    steps: int = param(
        0,
        "Training steps",
        "Number of training steps (batches). 0: until the loss on parts that are kept out of the "
        "training hardly falls any more (at most 5000 steps and 150 epochs, or 30 epochs from "
        "trained weights); the best model is kept. If training brings no improvement, that is what "
        "it started from.",
        TRAINING,
        unit="steps",
        ge=0,
        zero="auto",
    )
    epochs: int = param(
        0,
        "Epochs",
        "Train for this many epochs instead of a number of steps; one epoch visits "
        "every patch of the grid once. 0: use the number of steps.",
        TRAINING,
        unit="epochs",
        ge=0,
        zero="by steps",
        advanced=True,
        original="epochs",
    )
    patch_size: int = param(
        48,
        "Patch size",
        "Side of the cubic training patches. Larger patches see more context "
        "and need more memory. A multiple of 8, or of 32 for the published network; "
        "tomograms thinner than a patch are padded by reflection.",
        TRAINING,
        unit="voxels",
        ge=16,
        le=1024,
        original="subtomo_length",
    )
    batch_size: int = param(
        4,
        "Patches per batch",
        "Patches in a batch. Larger batches train more smoothly and need more GPU memory.",
        TRAINING,
        ge=1,
        le=1024,
        original="batch_size",
    )
    samples_per_patch: int = param(
        1,
        "Pairs per patch",
        "Perturbed pairs of each patch in a batch; the network sees "
        "patches x pairs volumes per step.",
        TRAINING,
        ge=1,
        le=1024,
        advanced=True,
        original="n_bernoulli_samples",
    )
    optimizer: str = param(
        "muon",
        "Optimizer",
        "How the weights are updated.\n"
        "muon: by equal steps in all directions of a layer's weights; needs fewer steps.\n"
        "adam: as published; needs a lower learning rate, about 0.001.",
        TRAINING,
        choices=("muon", "adam"),
        advanced=True,
    )
    learning_rate: float = param(
        3e-3,
        "Learning rate",
        "Learning rate of the optimizer; the schedule says how it changes.",
        TRAINING,
        gt=0,
        le=1,
        advanced=True,
        original="lr",
    )
    schedule: str = param(
        "settling",
        "Learning rate schedule",
        "How the learning rate changes.\n"
        "constant: stays, after a short rise.\n"
        "cosine: falls to zero along half a cosine, for a given number of steps.\n"
        "plateau: divided by 10 after 10 epochs without a lower loss (published).\n"
        "settling: from random weights, it rises to almost three times the learning rate within a "
        "few steps and falls back to it within one or two hundred (nearly constant where a "
        "tomogram is small or low-passed); from trained weights, constant at two thirds of it.",
        TRAINING,
        choices=("constant", "cosine", "plateau", "settling"),
        advanced=True,
    )
    averaging: float = param(
        0.1,
        "Average the weights over",
        "The model is the mean of the network's weights over this last share of the steps, which "
        "averages out the noise of single batches. 0: the last weights (published).",
        TRAINING,
        ge=0,
        le=0.5,
        zero="off",
        advanced=True,
    )
    gradient_clip: float = param(
        0.5,
        "Gradient clipping",
        "Gradients are clipped to this norm, so that an unusual batch does not spoil the training. "
        "0: never (published).",
        TRAINING,
        ge=0,
        advanced=True,
    )
    loss: str = param(
        "mse",
        "Loss",
        "What the training minimises.\n"
        "mse: mean squared error.\n"
        "l2norm: unsquared L2 norm of each sample's difference (published).",
        TRAINING,
        choices=("mse", "l2norm"),
        advanced=True,
    )
    tv_weight: float = param(
        0.0,
        "Total variation weight",
        "Weight of the anisotropic total variation of the "
        "prediction in the loss. A value above 0 smooths the result.",
        TRAINING,
        ge=0,
        advanced=True,
        original="alpha",
    )
    stop_patience: int = param(
        0,
        "Stop after flat epochs",
        "Stop when the epoch's loss has not fallen by 0.0001 for "
        "this many epochs. 0: train all steps.",
        TRAINING,
        unit="epochs",
        ge=0,
        advanced=True,
    )
    patch_shift: int = param(
        24,
        "Random shift of patches",
        "Each patch of the grid is shifted by up to this many "
        "voxels along every axis when it is drawn.",
        TRAINING,
        unit="voxels",
        ge=0,
        le=1024,
        advanced=True,
    )
    augmentation: str = param(
        "mirrors",
        "Augmentation",
        "How patches are rotated and mirrored at random.\n"
        "wedge: by half turns about X and Y, which map the missing wedge onto itself.\n"
        "published: by these and by quarter turns about Z, which move the wedge.\n"
        "none: not at all.\n"
        "mirrors: by half turns and mirroring, which doubles the training data.",
        TRAINING,
        choices=("wedge", "published", "none", "mirrors"),
        advanced=True,
    )

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

    network: str = param(
        "unshuffled",
        "Network",
        "The network that denoises.\n"
        "compact: a small U-Net at full resolution, which takes about twice as long as "
        "unshuffled.\n"
        "published: the published U-Net with partial convolutions and five poolings.\n"
        "unshuffled: a small U-Net at half the resolution, on 2 x 2 x 2 voxels as eight channels "
        "(pixel unshuffle), with "
        "light layers at full resolution; fast on any machine.",
        NETWORK,
        choices=tuple(NETWORK_FEATURES),
        advanced=True,
    )
    features: int = param(
        0,
        "Features",
        "Feature maps of the first level. More features cost time and memory in "
        "proportion to their square. 0: the network's own (unshuffled 16, compact 8, published "
        "48).",
        NETWORK,
        ge=0,
        le=1024,
        zero="automatic",
        advanced=True,
        original="n_features",
    )
    dropout: float = param(
        0.0,
        "Dropout",
        "Dropout probability in the decoder, in training and in prediction.",
        NETWORK,
        ge=0,
        lt=1,
        advanced=True,
        original="dropout_p",
    )

    deconvolve: bool = filtering.deconvolve()
    defocus: float = filtering.first("defocus")
    phase_shift: float = filtering.first("phase_shift")
    voltage: float = filtering.first("voltage")
    spherical_aberration: float = filtering.first("spherical_aberration")
    amplitude_contrast: float = filtering.first("amplitude_contrast")
    ctf: str = filtering.by_tomogram(**filtering.FIRST)
    phase_flipped: bool = filtering.first("phase_flipped")
    strength: float = filtering.first("strength")
    snr_falloff: float = filtering.first("snr_falloff")
    highpass: float = filtering.first("highpass")

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
        return {"published": SAMPLE_RUN}

    @classmethod
    def implied(cls):
        return dict(super().implied(), steps={"epochs": 0})

    def check(self):
        super().check()
        self._check_network()
        self._check_perturbation()
        self._check_files()
        names = self.names()
        if names and self.schedule == "cosine" and self.automatic():
            raise UserError(
                "--schedule is cosine and --steps 0 (auto); expected a number of steps "
                "or another schedule"
            )
        filtering.check_defocus(self, self.deconvolve and bool(names))

    def _check_network(self):
        multiple = NETWORK_MULTIPLE[self.network]
        if self.patch_size % multiple:
            raise UserError(
                f"--patch-size is {self.patch_size}; expected a multiple of "
                f"{multiple} for the {self.network} network"
            )
        if self.start == "pretrained" and self._size() != START_NETWORK:
            network, features = START_NETWORK
            raise UserError(
                f"--start is pretrained, with the network {self.network} of "
                f"{self.network_features()} features; expected {network} of "
                f"{features}, or random"
            )
        if self.start == "pretrained" and self.initial_model:
            raise UserError(
                f"--start is pretrained and --initial-model is {self.initial_model}; "
                "expected one of them"
            )

    def _check_perturbation(self):
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

    def check_devices(self, count):
        """Every device needs a patch of each batch; raises UserError."""
        if self.batch_size < count:
            raise UserError(
                f"--batch-size is {self.batch_size}; expected at least {count}, a "
                "patch for every device"
            )

    def automatic(self):
        """Whether the number of steps is found during the training."""
        return not (self.steps or self.epochs)

    def _size(self):
        return self.network, self.network_features()

    def starts_pretrained(self):
        """Whether the training begins with the weights that come with F2Fd."""
        suits = (
            self.perturbation in START_PERTURBATIONS
            and self._size() == START_NETWORK
            and self.patch_size >= START_PATCH
            and not self.initial_model
        )
        return self.start == "pretrained" or self.start == "automatic" and suits

    def pretrained(self):
        """Whether the network has learned something before this training."""
        return self.starts_pretrained() or bool(self.initial_model)

    def origin(self):
        """What the training starts from, in words."""
        if self.initial_model:
            return f"the model {self.initial_model}"
        return (
            "weights that have learned to denoise simulated tomograms of random ellipsoids"
            if self.starts_pretrained()
            else "random weights"
        )

    def network_features(self):
        """Features of the network, with 0 replaced by the network's own number."""
        return self.features or NETWORK_FEATURES[self.network]
