"""Parameters of a training that say what is learned from, and how long and how fast."""

from dataclasses import dataclass

from f2fd_core.config import shared
from f2fd_core.config.parameter import TRAINING, Config, UserError, param


@dataclass(frozen=True)
class LearningConfig(Config):
    """The patches, steps and learning rate of a training."""

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
        "training hardly falls any more (at most 5000 steps and, without half-maps, 150 epochs, or "
        "30 from trained weights); the best model is kept. If training brings no improvement, that "
        "is what it started from.",
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

    @classmethod
    def implied(cls):
        return dict(super().implied(), steps={"epochs": 0})

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
