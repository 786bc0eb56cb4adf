"""Parameters of a training that say what network learns, and from which weights on."""

from dataclasses import dataclass

from f2fd_core.config.parameter import NETWORK, UserError, param
from f2fd_core.config.perturbing import PerturbationConfig

NETWORK_MULTIPLE = {"compact": 8, "published": 32, "unshuffled": 8}
"""Patch and tile sides must be a multiple of this: how much coarser the lowest level is."""

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
class NetworkConfig(PerturbationConfig):
    """The same with the network."""

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

    def check(self):
        super().check()
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

    def network_features(self):
        """Features of the network, with 0 replaced by the network's own number."""
        return self.features or NETWORK_FEATURES[self.network]

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
