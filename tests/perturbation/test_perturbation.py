import dataclasses

import numpy as np
import pytest
import torch
from conftest import Memory, back_projected_noise, coloured

from f2fd_core import fourier
from f2fd_core.config import TrainConfig
from f2fd_core.data.batches import batch_of
from f2fd_core.data.half_maps import HalfMaps
from f2fd_core.data.volume import Volume
from f2fd_core.noise import NoiseModel
from f2fd_core.noise import Spectrum as NoiseSpectrum
from f2fd_core.perturbation import perturbation_for_training
from f2fd_core.perturbation.fourier_masks import FourierMasks
from f2fd_core.perturbation.half_maps import Noise2Noise
from f2fd_core.perturbation.noise_matched import NoiseMatched, noise_of
from f2fd_core.perturbation.real_space import Noise2Void, Self2Self
from f2fd_core.runtime.randomness import Randomness, Stream, derived_seed
from f2fd_core.training.loss import training_loss

SHAPES = [(16, 24, 40), (17, 21, 33)]


def masks(shape, volume=None, **options):
    options = dict(dict(perturbation="fourier_masks", pool_size=4, block_size=4), **options)
    torch.manual_seed(0)
    return FourierMasks(
        Memory(torch.randn(shape) if volume is None else volume), TrainConfig(**options)
    )


def drawn(perturbation, number):
    return torch.cat([sections for _, sections in perturbation.draw(number)])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize("shape", SHAPES)
def test_mask_has_only_the_three_values_and_always_the_sphere(shape):
    perturbation = masks(shape, sphere_min=0.08, sphere_max=0.08)
    inside = fourier.radial_frequency(shape) <= fourier.sphere_radius(0.08)
    for seed in range(5):
        mask = perturbation.mask(generator(seed))
        assert set(mask.unique().tolist()) == {-1.0, 0.0, 1.0}
        assert (mask[inside] != 0).all()


def test_shares_of_kept_dropped_and_inverted_coefficients():
    perturbation = masks(
        (48, 64, 80),
        mask_probability=0.4,
        inversion_probability=0.2,
        sphere_min=0.1,
        sphere_max=0.1,
    )
    mask = torch.stack([perturbation.mask(generator(seed)) for seed in range(20)])
    outside = fourier.radial_frequency((48, 64, 80)) > fourier.sphere_radius(0.1)
    assert (mask[:, outside] != 0).float().mean().item() == pytest.approx(0.6, abs=0.03)
    inverted = (mask == -1).float().sum() / (mask != 0).float().sum()
    assert inverted.item() == pytest.approx(0.2, abs=0.005)


def test_sphere_share_is_drawn_from_the_whole_interval():
    perturbation = masks(
        (32, 32, 32), mask_probability=0.999, sphere_min=0.05, sphere_max=0.4, block_size=32
    )
    weights = fourier.friedel_weights((32, 32, 32))
    shares = [
        float(((perturbation.mask(generator(seed)) != 0) * weights).sum()) / 32**3
        for seed in range(60)
    ]
    assert min(shares) < 0.1 and max(shares) > 0.35
    assert min(shares) > 0.04 and np.quantile(shares, 0.95) < 0.42


@pytest.mark.parametrize("shape", [(8, 6, 10), (7, 5, 9)])
def test_copy_equals_a_brute_force_transform(shape):
    """Every coefficient of the full complex spectrum, with its sign and its partner's."""
    perturbation = masks(shape, block_size=2, sphere_min=0.05, sphere_max=0.05)
    mask = perturbation.mask(generator(derived_seed(0, 0, 1)))
    full = np.zeros(shape)
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                if x < mask.shape[2]:
                    full[z, y, x] = mask[z, y, x]
                else:
                    full[z, y, x] = mask[-z % shape[0], -y % shape[1], -x % shape[2]]
    spectrum = np.fft.fftn(np.fft.irfftn(perturbation.spectrum.numpy(), s=shape))
    oracle = np.fft.ifftn(spectrum * full)
    np.testing.assert_allclose(oracle.imag, 0, atol=1e-6)
    np.testing.assert_allclose(drawn(perturbation, 1), oracle.real, atol=1e-5)


def test_low_frequencies_keep_their_magnitude():
    shape = (24, 30, 36)
    perturbation = masks(shape, inversion_probability=0.0, sphere_min=0.1, sphere_max=0.1)
    inside = fourier.radial_frequency(shape) <= fourier.sphere_radius(0.1)
    copy = torch.fft.rfftn(drawn(perturbation, 7))
    torch.testing.assert_close(copy[inside], perturbation.spectrum[inside], rtol=1e-3, atol=1e-3)
    assert (copy[~inside].abs() < 1e-3).float().mean() > 0.3


def test_samples_of_a_patch_are_distinct_copies():
    perturbation = masks((16, 16, 16), pool_size=6, samples_per_patch=3)
    for seed in range(10):
        torch.manual_seed(seed)
        inputs, targets, *_ = perturbation.pairs((0, 0, 0), (8, 8, 8), 3)
        samples = torch.cat([inputs, targets]).flatten(1)
        assert torch.unique(samples, dim=0).shape[0] == 6


def test_pool_renews_one_copy_a_step_and_can_jump_to_any_step():
    walked, jumped = masks((16, 16, 16)), masks((16, 16, 16))
    before = walked.pool.array.copy()
    for step in range(8):
        walked.at_step(step)
        if step == 2:
            assert [(new == old).all() for new, old in zip(walked.pool.array, before)] == [
                False,
                False,
                True,
                True,
            ]
    jumped.at_step(7)
    assert walked.numbers == jumped.numbers
    np.testing.assert_array_equal(walked.pool.array, jumped.pool.array)
    for slot, number in enumerate(walked.numbers):
        np.testing.assert_array_equal(
            walked.pool.array[slot], drawn(walked, number).numpy().astype(np.float16)
        )
    fixed = masks((16, 16, 16), renew_pool=False)
    fixed.at_step(9)
    assert fixed.numbers == [0, 1, 2, 3]


def test_prediction_draws_other_copies_than_training():
    volume = Memory(torch.randn(16, 16, 16))
    config = TrainConfig(perturbation="fourier_masks", block_size=4)
    training, prediction = (
        FourierMasks(volume, config),
        FourierMasks(volume, config, "cpu", 3, Stream.PREDICTION_COPIES),
    )
    assert len(prediction.pool.array) == 3
    assert not torch.allclose(drawn(training, 0), drawn(prediction, 0))


def test_the_less_noise_there_is_to_learn_from_the_more_is_added_and_the_slower_it_starts():
    torch.manual_seed(6)

    def spectrum(shape, low_pass=1.0, **settings):
        amplitude = 1.0 * (fourier.radial_frequency(shape) < low_pass)
        noise = fourier.synthesise(amplitude, shape, shape, 1)[0]
        return NoiseMatched(Memory(noise), TrainConfig(**settings))

    shape, two = (48, 80, 80), dict(tomograms=("1.mrc", "2.mrc"))
    alone = spectrum(shape)
    assert alone.scale == pytest.approx(0.75 * (4.8e5 / (48 * 80 * 80)) ** (1 / 3), rel=0.06)
    # A low-pass filter takes coefficients away, a second tomogram brings as many again.
    filtered, among_two = spectrum(shape, low_pass=0.3), spectrum(shape, **two)
    assert (filtered.scale, filtered.haste) == (1.0, 0.0)
    assert (among_two.scale, among_two.haste) == (0.75, 1.0)
    assert 0.2 < alone.haste < 0.7
    assert spectrum((32, 64, 64), **two).scale == pytest.approx(
        0.75 * (4.8e5 / (2 * 32 * 64 * 64)) ** (1 / 3), rel=0.06
    )
    given = spectrum(shape, noise_scale=0.3)
    assert given.scale == 0.3 and given.haste == pytest.approx(alone.haste, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_noises_of_a_spectrum_pair_are_uncorrelated(scale):
    """Input and target of pure noise X must be independent; only then is training unbiased."""
    torch.manual_seed(1)
    shape = (64, 64, 64)
    k = fourier.radial_frequency(shape)
    noise = back_projected_noise(coloured, shape, 1)
    grid = fourier.grid_of(shape)
    power = coloured(grid.radius) * grid.from_axis
    level = grid.ratio(power, torch.ones_like(power))
    known = NoiseModel(shape, NoiseSpectrum(power, level, level), power)
    # Half the true spectrum leaves the noises correlated: the test can tell.
    perturbation, wrong = (
        NoiseMatched(Memory(noise), TrainConfig(noise_scale=scale), noise=known) for _ in range(2)
    )
    wrong.lower(torch.full_like(wrong.lowered, 0.5))

    def high_pass_correlation(which):
        inputs, targets, *_ = which.pairs((0, 0, 0), shape, 24)
        one, two = (
            torch.fft.rfftn(part, dim=fourier.AXES)[:, k > 0.1] for part in (inputs, targets)
        )
        cross = (one * two.conj()).real.sum()
        return float(cross / (one.abs().square().sum() * two.abs().square().sum()).sqrt())

    assert abs(high_pass_correlation(perturbation)) < 0.02
    assert high_pass_correlation(wrong) > 0.1


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_noises_of_a_pair_are_uncorrelated_with_their_mirror_images(axis):
    """A patch that is wider than the tomogram has voxels and, beyond the face, the same ones again:
    from these a network could predict the noise of the target."""
    generator, scale, side, beyond = torch.Generator().manual_seed(5), 0.75, 24, 10
    shape = (side,) * 3
    volume = torch.randn(shape, generator=generator)
    white = torch.ones(side, side, side // 2 + 1)
    level = torch.ones_like(fourier.grid_of(shape).frequencies)
    known = NoiseModel(shape, NoiseSpectrum(white, level, level), white)
    perturbation = NoiseMatched(Memory(volume), TrainConfig(noise_scale=scale), noise=known)
    start = [-beyond if number == axis else 0 for number in range(3)]
    size = [side + 2 * beyond if number == axis else side for number in range(3)]
    inputs, targets, *_ = perturbation.pairs(start, size, 32)
    original, image = (
        part.narrow(axis + 1, first, beyond) for part, first in ((targets, beyond + 1), (inputs, 0))
    )
    product = (original * image.flip(axis + 1)).mean() / (original.std() * image.std())
    assert abs(float(product)) < 0.05  # the volume's noise alone: 1 / (a + 1 / a) = 0.48


def test_spectrum_pair_surrounds_the_tomogram():
    torch.manual_seed(2)
    volume = torch.randn(32, 32, 32)
    perturbation = NoiseMatched(Memory(volume), TrainConfig(noise_scale=0.5))
    inputs, targets, *_ = perturbation.pairs((4, 5, 6), (16, 16, 16), 2)
    region = volume[4:20, 5:21, 6:22]
    torch.testing.assert_close(
        0.8 * inputs + 0.2 * targets, region.expand(2, -1, -1, -1), rtol=1e-4, atol=1e-4
    )
    copies = torch.cat([perturbation.copies((4, 5, 6), (16, 16, 16), 1) for _ in range(2)])
    assert not torch.allclose(copies[0], copies[1])


def points(volume, **options):
    return Self2Self(Memory(volume), TrainConfig(perturbation="self2self", **options))


def blind_spots(volume, **options):
    return Noise2Void(Memory(volume), TrainConfig(perturbation="noise2void", **options))


def ramp(*shape):
    """A volume whose every voxel holds its own index, so a value shows where it comes from."""
    return torch.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize("probability", [0.1, 0.6])
def test_points_hide_their_share_and_target_the_rest(probability):
    torch.manual_seed(1)
    volume = torch.randn(40, 44, 48)
    region = volume[4:36, 5:37, 6:38]
    inputs, targets, weights, _ = points(volume, point_probability=probability).pairs(
        (4, 5, 6), (32, 32, 32), 3
    )
    assert set(weights.unique().tolist()) == {0.0, 1.0}
    assert torch.equal(inputs, region * (1 - weights))
    assert torch.equal(targets, region.expand(3, -1, -1, -1))
    assert weights.mean().item() == pytest.approx(probability, abs=0.01)
    # Every voxel is drawn for itself: neighbours and copies have nothing to do with each other.
    hidden = weights - weights.mean()
    for other in (hidden.roll(1, 0), hidden.roll(1, 3), hidden.roll(1, 1)):
        assert abs((hidden * other).mean() / hidden.var()) < 0.03


@pytest.mark.parametrize("probability", [0.25, 0.5])
def test_hidden_blocks_are_blocks(probability):
    torch.manual_seed(2)
    _, _, weights, _ = points(
        torch.randn(32, 32, 32), block_probability=1.0, block_size=4, mask_probability=probability
    ).pairs((0, 0, 0), (32, 32, 32), 4)
    blocks = weights.reshape(4, 8, 4, 8, 4, 8, 4).permute(0, 1, 3, 5, 2, 4, 6).flatten(4)
    assert torch.equal(blocks.amin(-1), blocks.amax(-1))
    assert weights.mean().item() == pytest.approx(probability, abs=0.04)
    assert not torch.equal(weights[0], weights[1])


def test_share_of_copies_with_blocks_instead_of_points():
    """Blocks hide half of a copy here, points a tenth."""
    torch.manual_seed(3)
    perturbation = points(
        torch.randn(16, 16, 16),
        block_probability=0.3,
        block_size=2,
        mask_probability=0.5,
        point_probability=0.1,
    )
    shares = [
        (perturbation.copies((0, 0, 0), (16, 16, 16), 1) == 0).float().mean().item()
        for _ in range(200)
    ]
    assert np.mean(np.array(shares) > 0.3) == pytest.approx(0.3, abs=0.1)


def test_copies_for_prediction_hide_other_points_each():
    torch.manual_seed(4)
    volume = torch.randn(24, 24, 24)
    copies = points(volume, point_probability=0.3).copies((2, 3, 4), (16, 16, 16), 4)
    region = volume[2:18, 3:19, 4:20].expand_as(copies)
    kept = copies != 0
    assert torch.equal(copies[kept], region[kept])
    assert kept.float().mean().item() == pytest.approx(0.7, abs=0.02)
    assert (kept[0] != kept[1]).float().mean().item() == pytest.approx(2 * 0.3 * 0.7, abs=0.05)


@pytest.mark.parametrize("kind", [points, blind_spots])
@pytest.mark.parametrize("loss", ["mse", "l2norm"])
def test_the_loss_sees_hidden_voxels_only(kind, loss):
    torch.manual_seed(5)
    pairs = kind(torch.randn(16, 16, 16)).pairs((0, 0, 0), (16, 16, 16), 2)
    inputs, targets, weights = (part.unsqueeze(1) for part in pairs[:3])
    prediction = torch.zeros_like(inputs, requires_grad=True)
    training_loss(TrainConfig(loss=loss))(prediction, targets, weights).backward()
    assert 0 < weights.sum() < 0.5 * weights.numel()
    assert torch.equal(prediction.grad != 0, weights == 1)


@pytest.mark.parametrize("share", [0.02, 0.3])
def test_blind_voxels_alone_are_replaced(share):
    torch.manual_seed(6)
    volume = ramp(40, 40, 40)
    region = volume[3:35, 4:36, 5:37]
    perturbation = blind_spots(volume, blind_share=share)
    inputs, targets, weights, _ = perturbation.pairs((3, 4, 5), (32, 32, 32), 3)
    assert torch.equal(inputs != region, weights == 1)
    assert torch.equal(targets, region.expand(3, -1, -1, -1))
    assert weights.mean().item() == pytest.approx(share, rel=0.1)
    assert torch.equal(
        perturbation.copies((3, 4, 5), (32, 32, 32), 2), region.expand(2, -1, -1, -1)
    )


def test_a_blind_voxel_takes_the_value_of_another_one_nearby():
    """Never its own, which is the noise to be predicted; also not at the faces."""
    torch.manual_seed(7)
    size = (8, 9, 10)
    inputs, _, weights, _ = blind_spots(ramp(*size), blind_share=0.5).pairs((0, 0, 0), size, 400)
    seen = set()
    for copy, blind in zip(inputs.long().numpy(), weights.numpy() == 1):
        places = np.argwhere(blind)
        sources = np.stack(np.unravel_index(copy[blind], size), 1)
        distances = np.abs(sources - places).max(1)
        assert distances.min() >= 1 and distances.max() <= 2
        inner = ((places >= 2) & (places < np.array(size) - 2)).all(1)
        seen |= set(map(tuple, (sources - places)[inner]))
    assert len(seen) == 5**3 - 1


@pytest.mark.parametrize("reach", [1, 3])
def test_crosses_about_blind_voxels_are_replaced_from_anywhere(reach):
    torch.manual_seed(8)
    size = (24, 26, 28)
    region = ramp(*size)
    inputs, targets, weights, _ = blind_spots(region, blind_share=0.004, blind_reach=reach).pairs(
        (0, 0, 0), size, 2
    )
    crosses = np.zeros(inputs.shape, dtype=bool)
    for number, *place in np.argwhere(weights.numpy() == 1):
        for axis in range(3):
            arm = [slice(at, at + 1) for at in place]
            arm[axis] = slice(max(place[axis] - reach, 0), place[axis] + reach + 1)
            crosses[(number, *arm)] = True
    replaced = (inputs != region).numpy()
    assert weights.mean().item() == pytest.approx(0.004, rel=0.3)
    assert not replaced[~crosses].any()
    assert replaced[crosses].mean() > 0.99
    assert torch.equal(targets, region.expand(2, -1, -1, -1))
    # From anywhere in the region, all alike: the values are spread evenly over its indices.
    shares, _ = np.histogram(inputs.numpy()[crosses], 4, (0, region.numel()))
    np.testing.assert_allclose(shares / crosses.sum(), 0.25, atol=0.06)


class HalfMapsInMemory:
    """Two half-maps of the same signal as the perturbation sees them."""

    def __init__(self, odd, even):
        self.halves = Memory(odd), Memory(even)
        self.shape = self.halves[0].shape

    def half(self, number, start, size):
        return self.halves[number].region(start, size)


def test_halves_are_paired_in_both_orders():
    torch.manual_seed(9)
    odd, even = torch.randn(2, 20, 20, 20)
    perturbation = Noise2Noise(HalfMapsInMemory(odd, even), TrainConfig(perturbation="noise2noise"))
    inputs, targets, weights, _ = perturbation.pairs((1, 2, 3), (16, 16, 16), 60)
    assert weights is None
    parts = [half[1:17, 2:18, 3:19] for half in (odd, even)]
    orders = [torch.equal(one, parts[0]) for one in inputs]
    for order, one, other in zip(orders, inputs, targets):
        assert torch.equal(one, parts[0 if order else 1])
        assert torch.equal(other, parts[1 if order else 0])
    assert 15 < sum(orders) < 45


def test_half_maps_give_noise_of_their_own_in_half_of_the_pairs(small):
    """All pairs have the mean of the half-maps in common."""
    config = TrainConfig(half_maps=(small["odd"], small["even"]))
    volume = HalfMaps([Volume(path) for path in config.half_maps])
    perturbation = perturbation_for_training(volume, config, "cpu")
    place = (3, -2, 5), (16, 16, 16)
    region, difference = (
        torch.from_numpy(found(*place)) for found in (volume.region, volume.difference)
    )
    scale = perturbation.scale

    def noise_of_pairs(pairs):
        assert pairs.scale is None
        both = pairs.inputs + scale**2 * pairs.targets
        torch.testing.assert_close(both / (1 + scale**2), region.expand_as(both))
        return (pairs.inputs - region) / scale

    def signs(noise):
        """1 or -1 where a copy's noise is the difference or its negative, else 0."""
        return [
            next((sign for sign in (1, -1) if torch.allclose(one, sign * difference, atol=1e-4)), 0)
            for one in noise
        ]

    torch.manual_seed(3)
    found = signs(noise_of_pairs(perturbation.pairs(*place, 60)))
    assert 18 < found.count(0) < 42 and min(found.count(1), found.count(-1)) > 5
    found = signs(noise_of_pairs(perturbation.independent_pairs(*place, 20)))
    assert found in ([1, -1] * 10, [-1, 1] * 10)
    random = [Randomness.of("cpu", 1, 2) for _ in range(2)]
    assert torch.equal(*(perturbation.pairs(*place, 4, one).inputs for one in random))


def test_tomograms_with_and_without_half_maps_are_learned_from_together(small):
    """As where one has half-maps that differ by more than noise."""
    config = TrainConfig(half_maps=(small["odd"], small["even"]), patch_size=16)
    known = HalfMaps([Volume(path) for path in config.half_maps])
    volumes = [known.alone(), known]
    perturbations = [perturbation_for_training(volume, config, "cpu") for volume in volumes]
    patches = [(number, (0, 0, 0)) for number in (0, 1)]
    batch = batch_of(patches, volumes, perturbations, [], config)
    assert batch.scales is None and batch.inputs.shape == (2, 1, 16, 16, 16)


def test_the_noise_of_a_volume_is_measured_once(small):
    path = small["tomogram"]
    config, volume = TrainConfig(tomograms=(path,)), Volume(path)
    found = noise_of(volume, config, "cpu")
    assert noise_of(volume, config, "cpu") is found
    flat = noise_of(volume, dataclasses.replace(config, noise_profile=False), "cpu")
    assert flat is not found and flat.profile.profiles != found.profile.profiles
    assert noise_of(Volume(path), config, "cpu") is not found
