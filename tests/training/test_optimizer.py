"""Steps of the optimizers."""

import pytest
import torch
from conftest import TINY

from f2fd_core import TrainConfig, UserError, train
from f2fd_core.network import checkpoint, unet
from f2fd_core.training import optimizer
from f2fd_core.training.optimizer import CHANGE, MOMENTUM, Muon, orthogonalised


@pytest.mark.parametrize("shape", [(8, 27), (16, 216), (216, 16), (24, 24)])
def test_singular_values_become_alike_and_singular_vectors_stay(shape):
    generator = torch.Generator().manual_seed(1)
    left, _, right = torch.linalg.svd(torch.randn(shape, generator=generator), full_matrices=False)
    values = torch.logspace(0, -2, min(shape))
    result, scaled = orthogonalised([left * values @ right, 1e-6 * left * values @ right])
    inner = left.T @ result @ right.T
    assert inner.diagonal().min() > 0.6 and inner.diagonal().max() < 1.3
    assert (inner - inner.diagonal().diag()).abs().max() < 1e-3
    torch.testing.assert_close(left @ inner @ right, result, rtol=0, atol=1e-3)
    torch.testing.assert_close(scaled, result, rtol=1e-3, atol=1e-3)


def test_many_matrices_at_once_are_iterated_as_each_alone_in_full():
    generator = torch.Generator().manual_seed(4)
    matrices = [
        torch.randn(shape, generator=generator)
        for shape in ((8, 27), (64, 200), (216, 8), (8, 8), (1, 8), (8, 1), (64, 27))
    ]
    for matrix, result in zip(matrices, orthogonalised(matrices)):
        values = (matrix / matrix.norm()).double()
        for _ in range(optimizer.ITERATIONS if min(matrix.shape) > 1 else 0):
            values = sum(
                factor * torch.linalg.matrix_power(values @ values.T, power) @ values
                for power, factor in enumerate(optimizer.COEFFICIENTS)
            )
        torch.testing.assert_close(result.double(), values, rtol=0, atol=1e-4)


def test_vectors_get_length_1_and_zeros_stay():
    vector = torch.tensor([[3.0, 4.0]])
    row, column, zeros = orthogonalised([vector, vector.T, torch.zeros(3, 5)])
    torch.testing.assert_close(row, vector / 5)
    torch.testing.assert_close(column, vector.T / 5)
    assert torch.equal(zeros, torch.zeros(3, 5))


def gradients_of(network, seed, scale=1.0):
    generator = torch.Generator().manual_seed(seed)
    for weight in network.parameters():
        weight.grad = scale * torch.randn(weight.shape, generator=generator)


@pytest.mark.parametrize("scale", [1e-4, 1.0])
def test_every_layer_changes_by_the_same_whatever_its_gradients(scale):
    network = unet.CompactUNet()
    before = [weight.detach().clone() for weight in network.parameters()]
    gradients_of(network, 1, scale)
    Muon(network.parameters(), lr=0.01).step()
    for weight, old in zip(network.parameters(), before):
        change = (weight - old).square().mean().sqrt()
        assert 0.6 < change / (0.01 * CHANGE) < 1.3
        assert ((weight - old) * weight.grad).sum() < 0


def test_steps_follow_the_mean_of_the_gradients():
    """A bias of a single value each: the sign of the mean, with Nesterov's look ahead, shows it."""
    weight = torch.nn.Parameter(torch.zeros(1))
    muon, mean = Muon([weight], lr=1.0), 0.0
    for gradient in (1.0, 1.0, 1.0, -0.2, -1.0, -5.0):
        before = weight.item()
        weight.grad = torch.tensor([gradient])
        muon.step()
        mean += (1 - MOMENTUM) * (gradient - mean)
        expected = gradient + MOMENTUM * (mean - gradient)
        assert weight.item() - before == pytest.approx(-CHANGE if expected > 0 else CHANGE)
    assert expected < 0


def test_a_parameter_without_gradient_stays():
    frozen, free = (torch.nn.Parameter(torch.ones(2, 3)) for _ in range(2))
    free.grad = torch.ones(2, 3)
    Muon([frozen, free], lr=1.0).step()
    assert torch.equal(frozen, torch.ones(2, 3)) and not torch.equal(free, torch.ones(2, 3))


def test_small_directions_are_learned_as_fast_as_large_ones():
    """Least squares whose inputs differ 100 times in strength: where descent along the gradient
    has not begun to learn the weak ones, orthogonal steps have."""
    generator = torch.Generator().manual_seed(2)
    strengths = torch.logspace(0, -2, 8)
    truth = torch.randn(8, 8, generator=generator)
    errors = {}
    for name, kind, rate in (("muon", Muon, 0.1), ("sgd", torch.optim.SGD, 0.5)):
        weight = torch.nn.Parameter(torch.zeros(8, 8))
        steps = kind([weight], lr=rate)
        for _ in range(300):
            inputs = torch.randn(64, 8, generator=generator) * strengths
            steps.zero_grad()
            (inputs @ weight.T - inputs @ truth.T).square().mean().backward()
            steps.step()
        errors[name] = float((weight - truth)[:, -2:].detach().norm() / truth[:, -2:].norm())
    assert errors["sgd"] > 0.9 and errors["muon"] < 0.4


def test_a_training_takes_the_optimizer_of_its_settings(phantom, tmp_path):
    for name, moment in (("muon", "momentum"), ("adam", "exp_avg")):
        folder = tmp_path / name
        train(
            TrainConfig(
                **dict(
                    TINY,
                    tomograms=(phantom["tomogram"],),
                    output=str(folder),
                    steps=1,
                    optimizer=name,
                )
            )
        )
        state = checkpoint.load(str(folder / "checkpoints" / "step_00000001.pt"))["optimizer"]
        assert all(moment in one for one in state["state"].values())
    published = optimizer.build(
        TrainConfig.create({"preset": "published"}), torch.nn.Linear(1, 1), torch.device("cpu")
    )
    assert isinstance(published, torch.optim.Adam)
    assert published.param_groups[0]["lr"] == 1e-4


@pytest.mark.slow
def test_trainings_of_before_there_was_a_choice_are_of_adam(phantom, tmp_path):
    train(
        TrainConfig(
            **dict(
                TINY,
                tomograms=(phantom["tomogram"],),
                output=str(tmp_path),
                optimizer="adam",
                learning_rate=1e-3,
            )
        )
    )
    path = checkpoint.path_of(str(tmp_path / "checkpoints"), TINY["steps"])
    state = checkpoint.load(path)
    del state["config"]["optimizer"]
    torch.save(state, path)
    assert checkpoint.load(path)["config"]["optimizer"] == "adam"
    resumed = dict(
        TINY, tomograms=(phantom["tomogram"],), output=str(tmp_path), steps=8, resume=True
    )
    with pytest.raises(UserError, match="--optimizer is muon; expected adam"):
        train(TrainConfig(**resumed))
    train(TrainConfig(**dict(resumed, optimizer="adam")))
    assert checkpoint.load(str(tmp_path / "model.pt"))["step"] == 8
