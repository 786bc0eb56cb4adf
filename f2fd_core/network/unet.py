"""The 3D U-Nets: the published one, and two small ones, compact and unshuffled.

All map (N, 1, Z, Y, X) to the same shape; sides must be multiples of 32 (published) or 8.
Dropout is element-wise and is switched on for prediction by :func:`enable_dropout`.
"""

import torch
from torch import nn
from torch.nn import functional

SLOPE = 0.1
FIRST_PREDICTIONS = 0.1
FOLD = 2
ONEDNN = torch.backends.mkldnn.is_available()


class Conv3d(nn.Conv3d):
    """PyTorch's convolution, computed by oneDNN on CPUs for a single volume, too.

    For a single small volume in float32 PyTorch chooses an algorithm of its own, which takes
    several times as long (``use_mkldnn`` in ATen's Convolution.cpp).
    """

    def forward(self, values):
        usual = (
            len(values) > 1
            or not ONEDNN
            or values.device.type != "cpu"
            or values.dtype is not torch.float32
            or torch.is_autocast_enabled("cpu")
            or torch.compiler.is_compiling()
        )
        if usual:
            return super().forward(values)
        return torch.mkldnn_convolution(
            values,
            self.weight,
            self.bias,
            self.padding,  # type: ignore[arg-type]  # numbers
            self.stride,
            self.dilation,
            self.groups,
        )


class PartialConv3d(nn.Conv3d):
    """3 x 3 x 3 convolution whose response is renormalised at the border.

    Partial convolution (Liu et al., ECCV 2018) without a mask: the weighted sum over the voxels
    inside is multiplied by 27 / (number of voxels inside), then the bias is added.
    """

    def __init__(self, inputs, outputs):
        super().__init__(inputs, outputs, 3, padding=1)

    @staticmethod
    def _border_factor(length, device):
        inside = torch.full((length,), 3.0, device=device)
        inside[0] -= 1
        inside[-1] -= 1
        return 3.0 / inside

    def forward(self, values):
        response = functional.conv3d(values, self.weight, padding=1)
        z, y, x = (self._border_factor(side, values.device) for side in values.shape[-3:])
        factor = z[:, None, None] * y[None, :, None] * x[None, None, :]
        bias = self.bias[:, None, None, None]  # type: ignore[index]  # it has one
        return response * factor.to(response.dtype) + bias.to(response.dtype)


def _activation():
    return nn.LeakyReLU(SLOPE)


def pool(values):
    """Maximum over blocks of 2 x 2 x 2 voxels; of odd sides the last voxel is left out."""
    # PyTorch's gradient of max_pool3d on GPUs adds in any order.
    if values.is_cuda and torch.are_deterministic_algorithms_enabled():
        return deterministic_pool(values)
    return functional.max_pool3d(values, 2)


def deterministic_pool(values):
    """:func:`pool`, axis by axis."""
    for axis in (-3, -2, -1):
        half = values.shape[axis] // 2
        values = values.narrow(axis, 0, 2 * half).unflatten(axis, (half, 2)).amax(axis)
    return values


def _upsample(values):
    return functional.interpolate(values, scale_factor=2, mode="nearest")


class PublishedUNet(nn.Module):
    """The published network: 5 poolings, partial convolutions, dropout before every decoder layer.

    ``features`` n (48 in the paper, then 2,963,425 parameters).
    """

    def __init__(self, features=48, dropout=0.8):
        super().__init__()
        n = features
        self.first = PartialConv3d(1, n)
        self.encoder = nn.ModuleList(
            [nn.Sequential(PartialConv3d(n, n), _activation()) for _ in range(6)]
        )

        def block(inputs, *outputs):
            layers = []
            for width in outputs:
                layers += [nn.Dropout(dropout), Conv3d(inputs, width, 3, padding=1), _activation()]
                inputs = width
            return layers

        self.decoder = nn.ModuleList(
            [nn.Sequential(*block(inputs * n, 2 * n, 2 * n)) for inputs in (2, 3, 3, 3)]
        )
        self.last = nn.Sequential(
            *block(2 * n + 1, 64, 32), nn.Dropout(dropout), Conv3d(32, 1, 3, padding=1)
        )

    def forward(self, volumes):
        skips = [volumes]
        values = self.first(volumes)
        for stage in self.encoder[:-1]:
            values = pool(stage(values))
            skips.append(values)
        skips.pop()
        values = self.encoder[-1](values)
        for stage in self.decoder:
            values = stage(torch.cat([_upsample(values), skips.pop()], 1))
        return self.last(torch.cat([_upsample(values), skips.pop()], 1))


def _initialise(network, last):
    """A network's first weights; ``last`` is its last layer.

    None where weights have no memory: PyTorch would import its compiler for them, which takes as
    long as PyTorch itself.
    """
    if last.weight.is_meta:
        return
    # He et al. (ICCV 2015): PyTorch's own start shrinks the signal at every layer.
    for module in network.modules():
        if isinstance(module, nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, a=SLOPE)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    # The first predictions are near the mean, and so is the first loss to the best there is.
    with torch.no_grad():
        last.weight.mul_(FIRST_PREDICTIONS)


class _UNet(nn.Module):
    """A U-Net with widths n, 2n, 4n, ... (n = ``features``), two layers a level."""

    def __init__(self, inputs, outputs, features, poolings, dropout):
        super().__init__()
        widths = [features * 2**level for level in range(poolings + 1)]

        def level(inputs, width):
            return nn.Sequential(
                Conv3d(inputs, width, 3, padding=1),
                _activation(),
                Conv3d(width, width, 3, padding=1),
                _activation(),
            )

        self.encoder = nn.ModuleList(
            [level(inputs, width) for inputs, width in zip([inputs] + widths, widths)]
        )
        self.decoder = nn.ModuleList(
            [
                nn.Sequential(nn.Dropout(dropout), level(deep + shallow, shallow))
                for deep, shallow in zip(widths[:0:-1], widths[-2::-1])
            ]
        )
        self.last = Conv3d(features, outputs, 1)

    def forward(self, volumes):
        skips, values = [], volumes
        for stage in self.encoder[:-1]:
            skips.append(stage(values))
            values = pool(skips[-1])
        values = self.encoder[-1](values)
        for stage in self.decoder:
            values = stage(torch.cat([_upsample(values), skips.pop()], 1))
        return self.last(values)


class CompactUNet(_UNet):
    """A small U-Net with 3 poolings, whose first level works at full resolution."""

    POOLINGS = 3

    def __init__(self, features=8, dropout=0.1):
        super().__init__(1, 1, features, self.POOLINGS, dropout)
        _initialise(self, self.last)


def pixel_unshuffle(volumes):
    """Blocks of 2 x 2 x 2 voxels as channels: (N, C, Z, Y, X) to (N, 8 C, Z / 2, Y / 2, X / 2).

    The inverse of the shuffling of Shi et al. (CVPR 2016), in three dimensions.
    """
    count, channels, *sides = volumes.shape
    z, y, x = (side // FOLD for side in sides)
    parts = volumes.reshape(count, channels, z, FOLD, y, FOLD, x, FOLD)
    return parts.permute(0, 1, 3, 5, 7, 2, 4, 6).reshape(count, channels * FOLD**3, z, y, x)


def pixel_shuffle(volumes):
    """What :func:`pixel_unshuffle` was made from."""
    count, channels, z, y, x = volumes.shape
    parts = volumes.reshape(count, channels // FOLD**3, FOLD, FOLD, FOLD, z, y, x)
    return parts.permute(0, 1, 5, 2, 6, 3, 7, 4).reshape(
        count, channels // FOLD**3, z * FOLD, y * FOLD, x * FOLD
    )


class UnshuffledUNet(nn.Module):
    """A small U-Net with 2 poolings that works at half the resolution, on unshuffled voxels.

    Most of a U-Net's time goes into its layers at full resolution. Here each voxel of the U-Net has
    the 2 x 2 x 2 of the volume as channels, so that nothing is lost, and only two light layers, of
    ``LAST`` features, work at full resolution: they smooth what differs between the eight.
    """

    POOLINGS, LAST = 2, 4

    def __init__(self, features=16, dropout=0.1):
        super().__init__()
        eight = FOLD**3
        self.inner = _UNet(eight, eight * self.LAST, features, self.POOLINGS, dropout)
        self.last = nn.Sequential(
            _activation(),
            Conv3d(self.LAST, self.LAST, 3, padding=1),
            _activation(),
            Conv3d(self.LAST, 1, 1),
        )
        _initialise(self, self.last[-1])

    def forward(self, volumes):
        inner = self.inner(
            pixel_unshuffle(volumes).contiguous(memory_format=torch.channels_last_3d)
        )
        return self.last(pixel_shuffle(inner).contiguous(memory_format=torch.channels_last_3d))

    @torch.no_grad()
    def invert(self):
        """Do with a tomogram what was done with its negative: f(x) becomes -f(-x)."""
        weights = dict(self.named_parameters())
        final = len(self.last) - 1
        for name in ("inner.encoder.0.0.weight", f"last.{final}.weight", f"last.{final}.bias"):
            weights[name].neg_()


def build(config):
    """The network of a TrainConfig."""
    kind = {"compact": CompactUNet, "published": PublishedUNet, "unshuffled": UnshuffledUNet}[
        config.network
    ]
    return kind(config.network_features(), config.dropout)


def enable_dropout(network):
    """Switch dropout on in a network that is otherwise in evaluation mode."""
    for module in network.modules():
        if isinstance(module, nn.Dropout):
            module.train()
