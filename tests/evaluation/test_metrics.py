import math

import numpy as np
import pytest
import torch

from f2fd_core.config import TrainConfig
from f2fd_core.evaluation import membranes, metrics
from f2fd_core.training import loss


@pytest.fixture
def pair():
    torch.manual_seed(0)
    signal = torch.nn.functional.avg_pool3d(torch.randn(1, 1, 40, 40, 40), 5, 1, 2)[0, 0] * 5
    return signal, signal + 0.5 * torch.randn(40, 40, 40)


@pytest.mark.parametrize(("gain", "offset"), [(1.0, 0.0), (7.0, -3.0), (-0.01, 100.0)])
def test_matched_scores_do_not_depend_on_gain_and_offset(pair, gain, offset):
    signal, noisy = pair
    plain, changed = metrics.score(noisy, signal), metrics.score(gain * noisy + offset, signal)
    for name in ("psnr", "ssim"):
        assert changed[name] == pytest.approx(plain[name], abs=0.02)
    assert changed["correlation"] == pytest.approx(
        math.copysign(plain["correlation"], gain), abs=1e-3
    )


def test_scores_of_a_perfect_result(pair):
    scores = metrics.score(pair[0], pair[0])
    assert scores["correlation"] == pytest.approx(1)
    assert scores["published_ssim"] == pytest.approx(1)
    assert scores["fsc_0.5"] is None and min(scores["fsc"]["correlation"]) > 0.999


def test_psnr_against_its_definition(pair):
    signal, noisy = pair
    error = float(((noisy - signal) ** 2).mean())
    assert metrics.psnr(noisy, signal, 4.0) == pytest.approx(10 * math.log10(16 / error), abs=1e-4)


@pytest.mark.parametrize("shape", [(24, 32, 40), (25, 31, 41)])
def test_shell_correlation_of_independent_noise_is_zero(shape):
    torch.manual_seed(1)
    _, curve = metrics.fourier_shell_correlation(torch.randn(shape), torch.randn(shape))
    assert curve[3:].abs().max() < 0.2
    assert abs(curve[3:].mean()) < 0.03


@pytest.mark.parametrize("shape", [(16, 16, 16), (16, 16, 18)])
def test_no_resolution_depends_on_the_rounding_of_the_mean(shape):
    """Which is all that the first shell of a cube has."""
    torch.manual_seed(4)
    one, noise = torch.randn(2, *shape)
    found = set()
    for offset in range(20):
        frequency, curve = metrics.fourier_shell_correlation(one + 0.37 * offset, one + 0.1 * noise)
        found.add(round(float(curve[0]), 3))
        assert metrics.crossing(frequency, curve, 0.5) is None
    assert len(found) == 1


def test_shell_correlation_against_the_full_transform():
    torch.manual_seed(2)
    shape = (12, 16, 14)
    one = torch.randn(shape)
    two = one + torch.randn(shape)
    frequency, curve = metrics.fourier_shell_correlation(one, two)
    a, b = (np.fft.fftn((part - part.mean()).numpy()) for part in (one, two))
    k = np.sqrt(sum(part**2 for part in np.meshgrid(*map(np.fft.fftfreq, shape), indexing="ij")))
    for shell in range(6):
        inside = np.floor(k * 12) == shell
        oracle = (a[inside] * b[inside].conj()).sum().real / math.sqrt(
            (abs(a[inside]) ** 2).sum() * (abs(b[inside]) ** 2).sum()
        )
        if shell:
            assert curve[shell] == pytest.approx(oracle, abs=1e-4)
        assert frequency[shell] == pytest.approx((shell + 0.5) / 12)


def test_crossing_is_interpolated():
    frequency = torch.tensor([0.1, 0.2, 0.3])
    assert metrics.crossing(frequency, torch.tensor([1.0, 0.8, 0.2]), 0.5) == pytest.approx(0.25)
    assert metrics.crossing(frequency, torch.tensor([1.0, 0.8, 0.6]), 0.5) is None


def test_average_precision_against_a_loop():
    rng = np.random.default_rng(0)
    scores = rng.integers(0, 12, 60) / 12
    truth = rng.random(60) < scores
    expected, recall = 0.0, 0.0
    for threshold in sorted(set(scores), reverse=True):
        found = scores >= threshold
        new_recall = truth[found].sum() / truth.sum()
        expected += (new_recall - recall) * truth[found].mean()
        recall = new_recall
    assert membranes.average_precision(scores, truth) == pytest.approx(expected)


def test_eigenvalues_against_numpy():
    matrices = np.random.default_rng(1).normal(size=(50, 3, 3))
    matrices = matrices + matrices.transpose(0, 2, 1)
    parts = [
        torch.from_numpy(matrices[:, i, j])
        for i, j in ((0, 0), (1, 1), (2, 2), (0, 1), (0, 2), (1, 2))
    ]
    found = torch.stack(membranes._symmetric_eigenvalues(*parts), -1).numpy()
    np.testing.assert_allclose(found[:, ::-1], np.linalg.eigvalsh(matrices), atol=1e-6)


def test_ridge_filter_answers_to_sheets_not_to_lines_or_balls():
    z, y, x = torch.meshgrid(*[torch.arange(-16.0, 16.0)] * 3, indexing="ij")
    sheet = torch.exp(-(x**2) / 8)
    line = torch.exp(-(x**2 + y**2) / 8)
    ball = torch.exp(-(x**2 + y**2 + z**2) / 8)
    centre = (16, 16, 16)
    answers = [float(membranes.sheetness(volume, 2.0)[centre]) for volume in (sheet, line, ball)]
    assert answers[0] > 10 * max(answers[1:])
    assert float(membranes.sheetness(-sheet, 2.0)[centre]) == 0


@pytest.mark.parametrize("contrast", [1, -1])
def test_membrane_precision_works_in_either_contrast(contrast):
    torch.manual_seed(3)
    x = torch.arange(-16.0, 16.0)
    sheet = contrast * torch.exp(-(x**2) / 8).expand(32, 32, 32)
    membrane = (x.abs() < 3).expand(32, 32, 32)
    known = membranes.Membranes(sheet, membrane)
    noisy = known.precision(sheet + 3 * torch.randn(32, 32, 32))
    assert known.precision(sheet) > 0.95 > noisy


@pytest.mark.parametrize(("distance", "half", "scale"), [(2.0, 1.5, 1.5), (8.0, 6.0, 5.0)])
def test_membranes_are_reported_at_the_scale_that_suits_the_reference(distance, half, scale):
    """Leaflets far apart make one sheet at a large scale only, and no dot may count as one."""
    torch.manual_seed(4)
    x = torch.arange(-24.0, 24.0)
    leaflets = sum(torch.exp(-((x - side * distance / 2) ** 2) / 2) for side in (-1, 1))
    dots = torch.zeros(48, 48, 48)
    dots[tuple(torch.randint(48, (3, 200)))] = 4.0
    reference = leaflets.expand(48, 48, 48) + dots
    known = membranes.Membranes(reference, (x.abs() < half).expand(48, 48, 48))
    assert known.scale == scale
    noisy = known.precision(reference + torch.randn(48, 48, 48))
    assert known.precision(reference) > noisy


def test_losses_against_their_definitions():
    torch.manual_seed(4)
    one, two = torch.randn(3, 1, 4, 5, 6), torch.randn(3, 1, 4, 5, 6)
    norms = [math.sqrt(((a - b) ** 2).sum()) for a, b in zip(one, two)]
    assert float(loss.l2_norm(one, two)) == pytest.approx(np.mean(norms), rel=1e-5)
    assert float(loss.mean_squared_error(one, two)) == pytest.approx(
        np.mean(np.square(norms)) / 120, rel=1e-5
    )
    slope = torch.arange(6.0).expand(1, 1, 4, 5, 6)
    assert float(loss.total_variation(slope)) == pytest.approx(1)
    weighted = loss.training_loss(TrainConfig(loss="l2norm", tv_weight=0.5))
    assert float(weighted(slope, slope)) == pytest.approx(0.5)


@pytest.mark.parametrize("share", [0.1, 0.9])
def test_weighted_losses_against_a_loop(share):
    rng = np.random.default_rng(5)
    one, two = rng.normal(size=(2, 3, 1, 4, 5, 6))
    weights = (rng.random((3, 1, 4, 5, 6)) < share).astype(float)
    squares, count = np.zeros(3), 0.0
    for index in np.ndindex(*weights.shape):
        squares[index[0]] += weights[index] * (one[index] - two[index]) ** 2
        count += weights[index]
    tensors = [torch.from_numpy(part) for part in (one, two, weights)]
    assert float(loss.mean_squared_error(*tensors)) == pytest.approx(squares.sum() / count)
    assert float(loss.l2_norm(*tensors)) == pytest.approx(np.sqrt(squares).mean())
    # The total variation is that of the whole prediction, whatever the weights are.
    smooth = loss.training_loss(TrainConfig(loss="mse", tv_weight=0.5))
    assert float(smooth(*tensors) - loss.mean_squared_error(*tensors)) == pytest.approx(
        0.5 * float(loss.total_variation(tensors[0]))
    )


@pytest.mark.parametrize("name", ["mse", "l2norm"])
def test_weights_of_one_change_nothing_and_of_zero_leave_nothing_to_learn(name):
    torch.manual_seed(6)
    prediction, target = torch.randn(2, 2, 1, 4, 4, 4)
    prediction.requires_grad_()
    distance = loss.training_loss(TrainConfig(loss=name))
    torch.testing.assert_close(
        distance(prediction, target, torch.ones_like(target)), distance(prediction, target, None)
    )
    nothing = distance(prediction, target, torch.zeros_like(target))
    nothing.backward()
    assert nothing.item() == 0
    assert (prediction.grad == 0).all()
