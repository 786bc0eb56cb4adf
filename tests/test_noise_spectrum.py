import numpy as np
import pytest
import torch
from conftest import Memory, coloured, synthesised

from f2fd_core import fourier, noise_spectrum, phantom, windows


def window_powers(volume):
    """Power of all windows of 32³ of a volume."""
    size = (32, 32, 32)
    return windows.window_power(Memory(volume).region,
                                windows.window_corners(volume.shape, size), size)


def test_noise_estimate_is_right_within_five_percent_a_shell():
    noise = synthesised(coloured, (96, 128, 128), 0)
    estimate = noise_spectrum.noise_level(window_powers(noise), 0.25)
    _, found = fourier.shell_means(estimate, (32, 32, 32))
    _, truth = fourier.shell_means(coloured(fourier.radial_frequency((32, 32, 32))), (32, 32, 32))
    np.testing.assert_allclose(found[2:], truth[2:], rtol=0.05)


def test_sparse_signal_hardly_lifts_the_noise_estimate():
    noise = synthesised(coloured, (64, 96, 96), 1)
    noise[20:26, 30:36, 40:46] += 30
    estimate = noise_spectrum.noise_level(window_powers(noise), 0.25)
    _, found = fourier.shell_means(estimate, (32, 32, 32))
    _, truth = fourier.shell_means(coloured(fourier.radial_frequency((32, 32, 32))), (32, 32, 32))
    mean = fourier.shell_means(window_powers(noise).mean(0), (32, 32, 32))[1]
    np.testing.assert_allclose(found[2:], truth[2:], rtol=0.2)
    assert (mean[2:] > 2 * truth[2:]).any()


def test_low_frequencies_are_spared():
    size = (32, 32, 32)
    full = torch.rand((32, 32, 17)) + 1
    spared = noise_spectrum.spare_low_frequencies(full, size, 0.1)
    k = fourier.radial_frequency(size)
    assert spared[0, 0, 0] == 0
    torch.testing.assert_close(spared[k >= 0.1], full[k >= 0.1])
    torch.testing.assert_close(spared[k < 0.1], (full * (k / 0.1) ** 2)[k < 0.1])
    torch.testing.assert_close(noise_spectrum.spare_low_frequencies(full, size, 0.0), full)


@pytest.mark.parametrize(("exponent", "found"), [(0.0, 0.0), (-1.0, -1.0), (-0.5, -0.5),
                                                 (1.0, 0.0), (-0.2, 0.0), (-4.0, -1.5)])
def test_noise_continues_to_low_frequencies_by_a_power_law(exponent, found):
    """A spectrum k^exponent goes on with the nearest exponent allowed."""
    size, limit = (48, 48, 48), 0.1
    k = fourier.radial_frequency(size).clamp(min=0.01)
    power = noise_spectrum.continue_to_low_frequencies(k ** exponent, size, limit,
                                                torch.full_like(k, 1e9))
    torch.testing.assert_close(power[k >= limit + 0.02], (k ** exponent)[k >= limit + 0.02])
    frequency, mean = fourier.shell_means(power, size)
    low = (frequency > 0.02) & (frequency < 0.08)
    law = (frequency / 0.15) ** found * 0.15 ** exponent
    torch.testing.assert_close(mean[low], law[low], rtol=0.25, atol=0)


def test_the_law_ends_before_the_zero_frequency():
    size = (40, 40, 40)
    k = fourier.radial_frequency(size).clamp(min=0.01)
    power = noise_spectrum.continue_to_low_frequencies(1 / k, size, 0.1, torch.full_like(k, 1e9))
    mean = fourier.shell_means(power, size)[1]
    assert float(power[0, 0, 0]) == pytest.approx(float(mean[1]), rel=0.2)
    assert float(power[0, 0, 0]) == pytest.approx(1 / 0.0375, rel=0.2)


def test_the_slope_of_a_low_pass_filter_is_no_part_of_the_law():
    size = (40, 40, 40)
    power = torch.sigmoid((0.23 - fourier.radial_frequency(size)) / 0.01)
    after = noise_spectrum.continue_to_low_frequencies(power, size, 0.1, 1e9 * power)
    torch.testing.assert_close(after, power, rtol=0.1, atol=1e-3)


@pytest.mark.parametrize(("size", "limit"), [((8, 8, 8), 0.1), ((16, 24, 9), 0.5),
                                             ((48, 48, 48), 0.0)])
def test_white_noise_stays_white(size, limit):
    power = torch.full_like(fourier.radial_frequency(size), 2.5)
    after = noise_spectrum.continue_to_low_frequencies(power, size, limit, 2 * power)
    torch.testing.assert_close(after, power)


@pytest.mark.parametrize("empty", [0.02, 0.06, 1.0])
def test_empty_shells_lift_nothing(empty):
    """Where an estimate found no power at all, as it may in a tomogram without noise."""
    size = (40, 40, 40)
    k = fourier.radial_frequency(size)
    power = 0.1 * (k > empty)
    after = noise_spectrum.continue_to_low_frequencies(power, size, 0.1, torch.full_like(k, 50.0))
    assert torch.isfinite(after).all()
    assert after.max() <= 0.1 * (0.1 / 0.025) ** 1.5 * 2


@pytest.mark.parametrize("height", [30.0, -0.5])
def test_low_frequencies_go_on_as_those_above(height):
    """Whether signal was left there or noise taken for signal; but never beyond the tomogram's."""
    size = (48, 48, 48)
    k = fourier.radial_frequency(size)
    power = 1 + height * torch.exp(-(k / 0.03) ** 2)
    total = torch.full_like(k, 1e9)
    after = noise_spectrum.continue_to_low_frequencies(power, size, 0.1, total)
    mean = fourier.shell_means(after, size)[1]
    torch.testing.assert_close(mean, torch.ones_like(mean), rtol=0.2, atol=0)
    bound = noise_spectrum.continue_to_low_frequencies(power, size, 0.1, power)
    assert (bound <= power * 1.2).all()


@pytest.mark.parametrize("size", [(16, 24, 20), (9, 15, 21)])
def test_power_fills_the_share_of_the_spectrum_where_it_is(size):
    white = torch.full((size[0], size[1], size[2] // 2 + 1), 3.0)
    assert noise_spectrum.filled_share(white, size) == pytest.approx(1)
    assert noise_spectrum.filled_share(0 * white, size) == 0
    low = white * (fourier.radial_frequency(size) < 0.3)
    share = float(np.mean(np.linalg.norm(np.meshgrid(
        *(np.fft.fftfreq(side) for side in size), indexing="ij"), axis=0) < 0.3))
    assert noise_spectrum.filled_share(low, size) == pytest.approx(share)
    # In half of that three times the power: (1 + 3)² / (2 (1 + 9)).
    low[:, : (size[1] + 1) // 2] *= 3
    assert noise_spectrum.filled_share(low, size) == pytest.approx(0.8 * share, rel=0.05)


@pytest.mark.parametrize("share", [0.05, 0.25, 0.5, 0.9, 1.0])
def test_noise_level_is_unbiased_and_as_steady_as_its_share_allows(share):
    draws = torch.from_numpy(np.random.default_rng(0).exponential(3.0, size=(30, 40000)))
    found = noise_spectrum.noise_level(draws, share).numpy()
    kept = max(1, round(30 * share))
    assert found.mean() == pytest.approx(3.0, rel=0.02)
    assert found.var() / 9 == pytest.approx(1 / kept, rel=0.05)


def test_noise_level_passes_over_windows_with_signal():
    draws = np.random.default_rng(0).exponential(size=(100, 2000))
    draws[:30] += 1000.0
    half, every = (noise_spectrum.noise_level(torch.from_numpy(draws), share).mean()
                   for share in (0.5, 1.0))
    assert half == pytest.approx(1.5, abs=0.3)
    assert every > 200


def wedge_power(size, low, high):
    """Power of a tilt range from ``low`` to ``high`` degrees about Y, on the rfft grid."""
    z, _, x = fourier.axis_frequencies(size)
    angle = torch.rad2deg(torch.atan2(z[:, None, None], x[None, None, :]))
    inside = (angle >= low) & (angle <= high)
    return torch.where(inside, 1.0, 0.01).expand(size[0], size[1], size[2] // 2 + 1).clone()


@pytest.mark.parametrize("size", [(16, 16, 16), (15, 18, 21)])
def test_mirrors_are_taken_where_they_agree_and_only_there(size):
    torch.manual_seed(0)
    draws = torch.distributions.Gamma(40.0, 40.0).sample((size[0], size[1], size[2] // 2 + 1))
    even, odd = wedge_power(size, -60, 60), wedge_power(size, -20, 60)
    variance = 1 / 40
    steadier = noise_spectrum.symmetrised(even * draws, variance)
    errors = [float((found / even - 1)[1:, 1:, 1:-1].square().mean())
              for found in (even * draws, steadier)]
    assert errors[1] == pytest.approx(errors[0] / 4, rel=0.2)
    # Another power gets the same mirrors, whether it agrees with them or not.
    ramp = torch.linspace(1, 2, size[1])[None, :, None].expand(even.shape)
    tilted = noise_spectrum.symmetrised(even * draws, variance, ramp)
    assert float(tilted[:, 1:].std()) < 1e-5 < 0.1 < float(ramp[:, 1:].std())
    assert (noise_spectrum.symmetrised(ramp ** 8, variance, ramp) == ramp).all()
    # An asymmetric range of tilts has one mirror only, along the tilt axis.
    kept = noise_spectrum.symmetrised(odd * draws, variance)
    error = float((kept / odd - 1)[1:, 1:, 1:-1].square().mean())
    assert error == pytest.approx(errors[0] / 2, rel=0.2)


def back_projected(size):
    """Noise power A(|k|) B(k_x, k_z) with a missing wedge, weak near the tilt axis Y."""
    z, _, x = fourier.axis_frequencies(size)
    z, x = z[:, None, None], x[None, None, :]
    across = torch.sqrt(z ** 2 + x ** 2)
    filled = 0.01 + (z.abs() <= 1.7 * x.abs())
    radial = 2 / (1 + 20 * fourier.radial_frequency(size) ** 2)
    return radial * filled * across / (0.05 + across)


def distance_to_the_axis(size):
    """Distance to the tilt axis Y in Fourier space (cycles per voxel) on the rfft grid."""
    z, _, x = fourier.axis_frequencies(size)
    distance = torch.sqrt(z[:, None, None] ** 2 + x[None, None, :] ** 2)
    return distance.expand(size[0], size[1], size[2] // 2 + 1)


@pytest.mark.parametrize(("size", "end"), [((40, 40, 40), np.inf), ((32, 48, 41), np.inf),
                                           ((40, 40, 40), 0.3)])
def test_noise_near_the_tilt_axis_is_told_by_that_of_high_frequencies(size, end):
    """Signal that is left in an estimate is strongest against the noise near the tilt axis Y, and
    its growth towards it tells what is signal elsewhere, even if it is all there (filaments across
    the axis); high frequencies are those below ``end``, where a low-pass filter begins."""
    radius = fourier.radial_frequency(size)
    noise = back_projected(size) * (1e-4 + (radius < end))
    torch.testing.assert_close(noise_spectrum.as_back_projected(noise, size, 0.1), noise,
                               rtol=0.15, atol=1e-3)
    middle = 0.5 * min(end, 0.5)
    near = fourier.axis_frequencies(size)[1].abs()[None, :, None] > 0.85 * radius
    last = 0.8 * middle
    band = (radius > 0.03) & (radius < last)
    everywhere = noise * 0.1 / distance_to_the_axis(size).clamp(min=0.5 / min(size))
    filaments = 0.5 * near * torch.ones(())
    high = (radius >= last + 1.5 / min(size)) & (radius < min(end, 0.5))
    for signal, part, share, least, most, with_signal in (
            (everywhere, near, 1.5, 1.0, 1.18, True), (everywhere, ~near, 0.5, 1.0, 1.21, True),
            (filaments, near, 1.0, 0.85, 1.05, True), (filaments, ~near, 0.0, 0.85, 1.0, True),
            (filaments, near, 1.0, 0.95, 1.05, False), (filaments, ~near, 0.0, 0.95, 1.05, False)):
        power = noise + signal * (radius < last)
        found = noise_spectrum.as_back_projected(power, size, 0.1, with_signal)
        assert signal[band & part].sum() >= share * noise[band & part].sum()
        assert least < float(found[band & part].sum() / noise[band & part].sum()) < most
        assert float(found[high].sum() / noise[high].sum()) == pytest.approx(1, abs=1e-3)


@pytest.mark.parametrize("size", [(40, 40, 40), (32, 48, 41)])
@pytest.mark.parametrize(("direction", "mistaken"), [
    (None, 0.25), ((0.2, 0.89, 0.41), 0.45), ((0.5, 0.81, 0.3), 0.2)])
def test_signal_that_reaches_into_the_upper_octave_is_told_there_too(size, direction, mistaken):
    """As in a tomogram, where it falls off slowly and is nowhere absent but at the end; with a
    ``direction`` (Z, Y, X) there are membranes, too, with all of their signal about it. Less than
    the share ``mistaken`` of the signal below the octave is taken for noise, and no noise for
    signal."""
    radius = fourier.radial_frequency(size)
    noise = back_projected(size)
    fading = (1 - radius / 0.4).clamp(min=0)
    signal = noise * 0.1 / distance_to_the_axis(size).clamp(min=0.5 / min(size)) * fading
    if direction:
        z, y, x = (frequency * part for frequency, part in
                   zip(fourier.axis_frequencies(size), direction))
        along = (z[:, None, None] + y[None, :, None] + x[None, None, :]).abs()
        signal = signal * (1 + 3 * (along > 0.9 * radius))
    found = noise_spectrum.as_back_projected(noise + signal, size, 0.1)
    for low, high, excess, most in ((0.03, 0.25, 0.4, mistaken),
                                    (0.25, 0.35, 0.1, 0.95 if direction else 0.5)):
        shells = (radius >= low) & (radius < high)
        total, more = float(noise[shells].sum()), float(signal[shells].sum())
        assert more > excess * total
        assert -0.03 * total < float(found[shells].sum()) - total < most * more
    shells = (radius >= 0.35) & (radius < 0.5)
    assert float(found[shells].sum() / noise[shells].sum()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("size", [(40, 40, 40), (32, 48, 41)])
def test_a_later_estimate_is_nowhere_above_the_first(size):
    """But hardly less than it was, and its scale is that at high frequencies, of noise alone."""
    radius = fourier.radial_frequency(size)
    noise = back_projected(size)
    near = fourier.axis_frequencies(size)[1].abs()[None, :, None] >= 0.75 * radius
    signal = noise * (0.5 + near) * (radius < int(0.2 * min(size)) / min(size))
    total = 1.6 * noise
    below = torch.maximum(noise, (1 - noise_spectrum.TRUST / 1.6) * (noise + signal))
    assert (below[near] > noise[near]).any()
    for first, later, expected in ((0.8 * noise, noise + signal, below),
                                   (noise + signal, 1.25 * noise, 1.25 * noise),
                                   (noise + signal * near, noise + signal,
                                    torch.where(near, noise + signal, below))):
        found = noise_spectrum.at_most(later, first, total, size, 0.1)
        torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)
    # The less of the total power the first is, the less it counts.
    doubtful = noise_spectrum.at_most(noise + signal, noise, 100 * total, size, 0.1)
    torch.testing.assert_close(doubtful, noise + signal, rtol=2e-3, atol=0)


def test_noise_is_as_it_came_where_there_is_hardly_any_signal():
    size = (40, 40, 40)
    torch.manual_seed(4)
    power = back_projected(size)
    total = 1.3 * power * torch.distributions.Gamma(40.0, 40.0).sample(power.shape)
    found = noise_spectrum.as_it_came(power, total, size)
    radius = fourier.radial_frequency(size)
    low, high = radius < 0.33, (radius > 0.34) & (radius < 0.5) & (power > 0)
    assert (found[low] == power[low]).all()
    # by chance as in the total power, at the level of the noise
    assert float((found / total)[high].std()) < 0.02 < 0.1 < float((power / total)[high].std())
    for inner in (0.35, 0.4, 0.45):
        shell = (radius > inner) & (radius < inner + 0.05)
        assert float(found[shell].sum() / power[shell].sum()) == pytest.approx(1, abs=0.01)
    nearly = total / total[high].sum() * power[high].sum() * 1.02
    assert (noise_spectrum.as_it_came(power, nearly, size)[high] == nearly[high]).all()


def test_what_a_low_pass_filter_leaves_is_not_taken_for_noise_alone():
    """Its end is not where signal ends: below a third of a cycle per voxel, estimates count."""
    size = (40, 40, 40)
    radius = fourier.radial_frequency(size)
    power = back_projected(size) * (radius < 0.28)
    total = power * (1 + torch.rand(power.shape, generator=torch.Generator().manual_seed(1)))
    assert (noise_spectrum.as_it_came(power, total, size) == power).all()


def falling(k):
    return 1 / k.clamp(min=1 / 64)


def low_passed(k):
    return torch.sigmoid((0.25 - k) / 0.0075) * (k < 0.28)


@pytest.mark.parametrize("smaller", [(24, 24, 24), (32, 32, 32), (24, 32, 16)])
@pytest.mark.parametrize("of", [torch.ones_like, falling, low_passed])
def test_smaller_windows_see_the_same_noise(of, smaller):
    """What they resolve less is no reason to take the noise for less, nor are the edges of a band;
    only a lower level is."""
    size, fine = (64, 64, 64), (96, 96, 96)
    region = Memory(synthesised(of, fine, 3)).region

    def estimate(size):
        return windows.window_power(region, windows.window_corners(fine, size), size).mean(0)

    power, other = estimate(size), estimate(smaller)
    radius = fourier.radial_frequency(size)
    for level in (1.0, 1.5):
        kept = noise_spectrum.level_at_most(power, size, level * other, smaller, 0.1)
        np.testing.assert_allclose((kept / power)[radius < 0.23], 1, atol=0.06)
    factor = noise_spectrum.level_at_most(power, size, 0.7 * other, smaller, 0.1) / power
    middle = (radius > 0.12) & (radius < (0.16 if of is low_passed else 0.25))
    assert float(factor[middle].mean()) == pytest.approx(0.7, abs=0.03)
    # Where there is hardly any signal, nothing is changed.
    assert (factor[(radius > 0.37) & (radius < 0.5)] == 1).all()


def test_back_projection_weights_noise_and_signal_as_the_estimate_expects():
    """Over angles to the tilt axis, the power of signal over that of noise falls as 1 / q."""
    generator = torch.Generator().manual_seed(0)
    shape, size, angles = (64, 128, 128), (32, 32, 32), np.radians(np.arange(-60, 61, 3))
    density = fourier.synthesise(torch.ones(()), shape, shape, 1, generator)[0]
    clean = phantom.project(density, angles)
    series = torch.stack([clean, torch.randn(clean.shape, generator=generator)])
    signal, noise = (window_powers(volume.numpy()).mean(0)
                     for volume in phantom.back_project(series, angles, shape[0]))
    radius, distance = fourier.radial_frequency(size), distance_to_the_axis(size)
    shell = (radius > 0.1) & (radius < 0.25) & (noise > 0.2 * noise.median())
    cosine = distance / radius
    ratios = []
    for low, high in ((0.2, 0.4), (0.4, 0.7), (0.7, 1.0)):
        part = shell & (cosine >= low) & (cosine < high)
        ratios.append(float((signal * distance)[part].sum() / noise[part].sum()))
    assert max(ratios) < 1.25 * min(ratios)


def test_noise_of_another_form_stays():
    """With a tilt axis along Z, or with less noise than that of high frequencies tells."""
    size = (40, 40, 40)
    noise = back_projected(size)
    radius = fourier.radial_frequency(size)
    along = fourier.axis_frequencies(size)[1].abs()[None, :, None] > 0.6 * radius
    for power in (noise.permute(1, 0, 2).contiguous(),
                  torch.where(along & (radius < 0.2), 0.2 * noise, noise)):
        assert torch.equal(noise_spectrum.as_back_projected(power, size, 0.1), power)
