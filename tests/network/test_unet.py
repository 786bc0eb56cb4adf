from unittest import mock

import numpy as np
import pytest
import torch

from f2fd_core.config import TrainConfig
from f2fd_core.network import unet


def test_published_network_has_the_published_number_of_parameters():
    """Weights and biases of every 3 x 3 x 3 layer, counted by hand for n = 48."""

    def layer(inputs, outputs):
        return 27 * inputs * outputs + outputs

    n = 48
    encoder = layer(1, n) + 6 * layer(n, n)
    decoder = layer(2 * n, 2 * n) + 3 * layer(3 * n, 2 * n) + 4 * layer(2 * n, 2 * n)
    last = layer(2 * n + 1, 64) + layer(64, 32) + layer(32, 1)
    assert encoder + decoder + last == 2963425
    network = unet.build(TrainConfig.create({"preset": "published"}))
    assert sum(weight.numel() for weight in network.parameters()) == 2963425


def test_partial_convolution_against_its_formula():
    torch.manual_seed(0)
    layer = unet.PartialConv3d(2, 3)
    volume = torch.randn(1, 2, 4, 1, 5)
    result = layer(volume).detach().numpy()[0]
    weight, bias = layer.weight.detach().numpy(), layer.bias.detach().numpy()
    values = volume.numpy()[0]
    for z, y, x in np.ndindex(4, 1, 5):
        total, inside = np.zeros(3), 0
        for dz, dy, dx in np.ndindex(3, 3, 3):
            at = (z + dz - 1, y + dy - 1, x + dx - 1)
            if all(0 <= place < side for place, side in zip(at, (4, 1, 5))):
                inside += 1
                total += weight[:, :, dz, dy, dx] @ values[(slice(None), *at)]
        np.testing.assert_allclose(
            result[:, z, y, x], total * 27 / inside + bias, rtol=1e-4, atol=1e-5
        )


@pytest.mark.parametrize(
    ("network", "side"), [("compact", 40), ("published", 64), ("unshuffled", 40)]
)
def test_output_has_the_input_size(network, side):
    model = unet.build(TrainConfig(network=network, patch_size=64, features=4)).eval()
    assert model(torch.randn(2, 1, side, 32, side)).shape == (2, 1, side, 32, side)


@pytest.mark.parametrize("network", ["compact", "published", "unshuffled"])
def test_dropout_is_on_in_prediction_by_an_explicit_call_only(network):
    model = unet.build(TrainConfig(network=network, patch_size=64, features=4, dropout=0.5)).eval()
    volume = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(volume), model(volume), rtol=0, atol=0)
        unet.enable_dropout(model)
        assert not torch.equal(model(volume), model(volume))


def test_folding_takes_blocks_of_eight_voxels_as_channels_and_loses_nothing():
    volumes = torch.arange(2 * 3 * 4 * 6 * 8).reshape(2, 3, 4, 6, 8)
    folded = unet.pixel_unshuffle(volumes)
    assert folded.shape == (2, 24, 2, 3, 4)
    for channel, z, y, x in np.ndindex(3, 4, 6, 8):
        eighth = 4 * (z % 2) + 2 * (y % 2) + x % 2
        assert torch.equal(
            folded[:, 8 * channel + eighth, z // 2, y // 2, x // 2], volumes[:, channel, z, y, x]
        )
    assert torch.equal(unet.pixel_shuffle(folded), volumes)


def multiplications(network):
    """Those of the convolutions, for each voxel."""
    counts = []
    model = unet.build(TrainConfig(network=network))
    for module in model.modules():
        if isinstance(module, torch.nn.Conv3d):
            module.register_forward_hook(
                lambda layer, _, output: counts.append(layer.weight.numel() * output[0, 0].numel())
            )
    model(torch.zeros(1, 1, 16, 16, 16))
    return sum(counts) / 16**3


def test_the_folded_network_spares_more_than_half_of_the_work():
    assert 2000 < multiplications("unshuffled") < multiplications("compact") / 2


@pytest.mark.slow
@pytest.mark.parametrize("network", ["compact", "unshuffled"])
def test_what_lies_beyond_the_field_of_view_is_ignored(network):
    """Shifted by a multiple of the pooling, the inner result is shifted alike."""
    torch.manual_seed(0)
    model = unet.build(TrainConfig(network=network, features=2)).eval()
    volume = torch.randn(1, 1, 112, 112, 112)
    with torch.no_grad():
        whole = model(volume)
        part = model(volume[..., 8:, 8:, 8:])
    torch.testing.assert_close(
        part[..., 48:56, 48:56, 48:56], whole[..., 56:64, 56:64, 56:64], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("padding", [1, 0])
def test_a_single_volume_is_convolved_like_one_of_two(padding):
    """Forwards and backwards, though it is computed in another way; in bfloat16, too."""
    torch.manual_seed(0)
    layer = unet.Conv3d(3, 5, 3, padding=padding)
    volume, found = torch.randn(1, 3, 6, 7, 8), []
    for count in (1, 2):
        values = volume.clone().requires_grad_()
        result = layer(values.expand(count, -1, -1, -1, -1))[:1]
        gradients = torch.autograd.grad(result.square().sum(), (values, *layer.parameters()))
        with torch.autocast("cpu", torch.bfloat16):
            short = layer(values.expand(count, -1, -1, -1, -1))[:1]
        assert short.dtype is torch.bfloat16
        found.append([result, short, *gradients])
    for alone, paired in zip(*found):
        torch.testing.assert_close(alone, paired, rtol=1e-4, atol=1e-4)


@pytest.mark.skipif(not unet.ONEDNN, reason="PyTorch has no oneDNN here")
def test_a_single_volume_is_convolved_as_fast_as_a_pair():
    """Not by PyTorch's own algorithm, which takes several times as long. If PyTorch no longer
    chooses that, Conv3d can go."""
    model = unet.build(TrainConfig()).eval()
    ways = []
    for usual in (False, True):
        with mock.patch.object(unet, "ONEDNN", not usual), torch.profiler.profile() as profile:
            model(torch.zeros(1, 1, 48, 48, 48))
        ways.append({event.key for event in profile.key_averages()})
    assert "aten::slow_conv3d_forward" not in ways[0]
    assert "aten::slow_conv3d_forward" in ways[1]


@pytest.mark.parametrize("shape", [(4, 6, 8), (5, 7, 9)])
def test_deterministic_pooling_is_pooling(shape):
    """Forwards and backwards, where no two voxels are equal."""
    weights = torch.randn((2, 3) + tuple(side // 2 for side in shape))
    values = torch.randn((2, 3) + shape)
    found = []
    for function in (unet.pool, unet.deterministic_pool):
        own = values.clone().requires_grad_()
        pooled = function(own)
        (pooled * weights).sum().backward()
        found.append((pooled.detach(), own.grad))
    for plain, other in zip(*found):
        torch.testing.assert_close(other, plain, rtol=0, atol=0)
