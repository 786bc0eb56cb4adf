import itertools

import numpy as np
import pytest
import torch
from conftest import TINY, assert_same_weights

from f2fd_core import TrainConfig, fourier, train
from f2fd_core.commands import train as training
from f2fd_core.data.patches import all_patches
from f2fd_core.data.regions import crop
from f2fd_core.network import checkpoint
from f2fd_core.noise import NoiseModel, Spectrum
from f2fd_core.runtime import train_log
from f2fd_core.runtime.randomness import Randomness
from f2fd_core.training import schedule, state, stopping, trainer, validation
from f2fd_core.training.stopping import EarlyStopping
from f2fd_core.training.validation import ValidationCubes

SHAPES = [(40, 48, 64), (12, 40, 32)]
SIDE = 16


def held(shapes, side, seed):
    return ValidationCubes(shapes, all_patches(shapes, side), side, seed)


def held_voxels(held_out, index):
    """The held-out cubes as a boolean volume, voxel by voxel."""
    volume = np.zeros(SHAPES[index], dtype=bool)
    for other, corner in held_out.patches:
        if other == index:
            for voxel in itertools.product(range(SIDE // 4, SIDE - SIDE // 4), repeat=3):
                place = tuple(first + at for first, at in zip(corner, voxel))
                if all(0 <= at < length for at, length in zip(place, volume.shape)):
                    volume[place] = True
    return volume


@pytest.mark.parametrize(
    ("index", "start"),
    [(0, (0, 0, 0)), (0, (7, 13, 29)), (0, (24, 32, 48)), (1, (-2, 3, 5)), (1, (-2, 24, 16))],
)
def test_no_voxel_of_the_cubes_is_a_target(index, start):
    """Also not where a patch beyond the faces of a thin volume mirrors it."""
    held_out = held(SHAPES, SIDE, seed=3)
    weights = held_out.weights(index, start)
    expected = crop(held_voxels(held_out, index), start, (SIDE,) * 3)
    np.testing.assert_array_equal(weights.numpy(), ~expected)


def test_cubes_are_a_small_part_of_every_tomogram_of_some_size():
    held_out = held([(96, 160, 160)], 48, seed=0)
    assert len(held_out.patches) == 16
    share = 16 * 24**3 / (96 * 160 * 160)
    assert 0.05 < share < 0.1
    assert held([(96, 160, 160)], 48, seed=1).patches != held_out.patches
    assert len(held([(400, 800, 800)], 48, seed=0).patches) == validation.MAXIMUM_HELD


class Plain:
    """Pairs of a known signal with new independent noise."""

    axes = (0, 1, 2)
    independent = True

    def independent_pairs(self, start, size, count, random):
        from f2fd_core.perturbation.base import Pairs

        z = torch.arange(start[0], start[0] + size[0]).float()[:, None, None]
        signal = torch.sin(z / 5).expand(count, *size)
        noise = torch.randn(2, count, *size, generator=random.device)
        return Pairs(signal + noise[0], signal + noise[1])


class Scaled(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = torch.nn.Parameter(torch.tensor(factor))

    def forward(self, values):
        return self.factor * values


def test_loss_on_held_out_parts_ranks_networks_by_their_true_error():
    held_out = held([(64, 64, 64)], SIDE, seed=0)

    def loss(factor):
        return held_out.validate(Scaled(factor), [Plain()], torch.device("cpu"), torch.float32).loss

    # Against the signal, a y = a s + a n errs by (1 - a)^2 s^2 + a^2, which a third of s^2 / (s^2
    # + 1) with s^2 near 0.5 makes smallest.
    losses = {factor: loss(factor) for factor in (0.0, 0.33, 1.0)}
    assert losses[0.33] < losses[0.0] < losses[1.0]
    state = torch.random.get_rng_state()
    assert loss(0.33) == losses[0.33]  # the same pairs every time
    found = held_out.validate(Scaled(0.33), [Plain()], torch.device("cpu"), torch.float32)
    assert found.power == pytest.approx(losses[0.0], rel=1e-6)
    assert found.signal == pytest.approx(found.power - 1.0, abs=0.02)
    assert torch.equal(torch.random.get_rng_state(), state)


class Matched(Plain):
    """The same signal in one volume of white noise, which is known, and as strong in copies."""

    scale, independent = 1.0, False

    def __init__(self, level=1.0):
        size = (SIDE,) * 3
        power = torch.full_like(fourier.radial_frequency(size), level)
        shells = fourier.grid_of(size).ratio(power, torch.ones_like(power))
        self.noise = NoiseModel(size, Spectrum(power, shells, shells), power)
        whole = (0, 0, 0), (64,) * 3
        self.signal = self.independent_pairs(*whole, 1, Randomness.of("cpu", 1)).inputs[0]
        z = torch.arange(64.0)[:, None, None]
        self.truth = torch.sin(z / 5).expand(64, 64, 64)

    def copies_of_itself(self, start, size):
        return crop(self.signal, start, size)[None]

    def copies(self, start, size, count, first, random):
        region = self.copies_of_itself(start, size)
        return region + self.noise.sample(start, size, count, random, "cpu")


class Spikes(Matched):
    """A voxel in a hundred is 10, or none is; in white noise of power 1."""

    def __init__(self, share=0.01, level=1.0):
        super().__init__(level)
        random = torch.Generator().manual_seed(2)
        shape = self.signal.shape
        self.truth = 10.0 * (torch.rand(shape, generator=random) < share)
        self.signal = self.truth + torch.randn(shape, generator=random)


class Threshold(torch.nn.Module):
    def forward(self, values):
        return values * (values > 5)


def test_hidden_coefficients_show_what_is_known_of_the_signal_whatever_the_noise_is_taken_for():
    """Spikes are seen without a tenth of them, which then are a tenth lower. What only passes on
    its input finds nothing, and in noise alone nothing is found."""
    held_out = held([(64, 64, 64)], SIDE, seed=0)

    def found(network, perturbation):
        return held_out.share_found(network, [perturbation], torch.device("cpu"), torch.float32)

    of_signal = found(Threshold(), Spikes())
    assert of_signal == pytest.approx(0.99 / 2, abs=0.03)
    assert of_signal == found(Threshold(), Spikes(level=0.3))
    for factor in (0.5, 1.0):
        assert found(Scaled(factor), Spikes()) == pytest.approx(0, abs=1e-5)
    assert found(Threshold(), Spikes(share=0.0)) == pytest.approx(0, abs=0.01)
    assert found(torch.nn.Tanh(), Spikes(share=0.0)) < 0.01


def test_coefficients_with_hardly_any_noise_are_not_hidden():
    """There a network may rely on the coefficient itself."""
    held_out = held([(64, 64, 64)], SIDE, seed=0)
    clear = Spikes()
    clear.noise.total = 10 * clear.noise.power
    assert held_out.share_found(Threshold(), [clear], torch.device("cpu"), torch.float32) == 0


def test_steins_estimate_is_the_error_without_the_truth():
    """Up to the noise's power; and given too little noise, it prefers what removes less."""
    held_out = held([(64, 64, 64)], SIDE, seed=0)
    inner = held_out._inner()

    def check(factor, perturbation):
        return held_out.validate(Scaled(factor), [perturbation], torch.device("cpu"), torch.float32)

    known, too_little = Matched(), Matched(0.3)
    for factor in (0.0, 0.33, 0.6, 1.0):
        errors = [
            float(
                (
                    factor * crop(known.signal, start, (SIDE,) * 3)
                    - crop(known.truth, start, (SIDE,) * 3)
                )[inner, inner, inner]
                .square()
                .mean()
            )
            for _, start in held_out.patches
        ]
        found = check(factor, known)
        # In copies, which are what is judged, there is as much noise again.
        assert found.loss - 1.0 == pytest.approx(np.mean(errors) + factor**2, abs=0.06)
        response = found.responses[0]
        torch.testing.assert_close(response, torch.full_like(response, factor), rtol=0, atol=1e-4)
    assert check(0.2, known).loss < min(check(factor, known).loss for factor in (0.0, 1.0))
    assert check(0.6, too_little).loss < check(0.2, too_little).loss


def test_the_loss_of_independent_pairs_knows_better_than_noise_that_is_wrong():
    """As with half-maps; the responses to synthetic noise are still watched."""
    held_out = held([(64, 64, 64)], SIDE, seed=0)

    def check(factor, perturbation):
        return held_out.validate(Scaled(factor), [perturbation], torch.device("cpu"), torch.float32)

    wrong, known = Matched(0.3), Matched(0.3)
    known.independent = True
    assert check(0.6, wrong).loss < check(0.33, wrong).loss
    assert check(0.33, known).loss < min(check(factor, known).loss for factor in (0.0, 0.6))
    assert check(0.33, known).loss == check(0.33, Plain()).loss
    assert torch.equal(check(0.33, known).responses[0], check(0.33, wrong).responses[0])


def test_a_network_is_no_worse_for_removing_more_noise_from_the_tomogram_than_from_copies():
    """As lessons make it: where the noise is underestimated, what is passed seems to be signal."""
    held_out, too_little = held([(64, 64, 64)], SIDE, seed=0), Matched(0.3)

    class Adaptive(Scaled):
        def forward(self, values):
            of_copies = values.diff().square().mean((2, 3, 4), keepdim=True) > 2.3
            return super().forward(values) * torch.where(of_copies, 1.0, 0.5)

    found, plain = (
        held_out.validate(network, [too_little], torch.device("cpu"), torch.float32).loss
        for network in (Adaptive(0.4), Scaled(0.4))
    )
    assert found == pytest.approx(plain, rel=1e-6)


def test_a_network_that_does_its_best_shows_the_power_of_the_signal():
    held_out, known = held([(64, 64, 64)], SIDE, seed=0), Matched()
    inner = held_out._inner()
    signal = np.mean(
        [
            float(crop(known.truth, start, (SIDE,) * 3)[inner, inner, inner].square().mean())
            for _, start in held_out.patches
        ]
    )
    best = signal / (signal + 2)  # Wiener's filter of this signal, which is as good as white
    found = held_out.validate(Scaled(best), [known], torch.device("cpu"), torch.float32)
    assert found.signal == pytest.approx(signal, abs=0.05)
    assert (found.power - found.loss) / found.signal == pytest.approx(best, abs=0.05)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "steps"),
    [
        (dict(perturbation="noise_matched"), [5]),
        (dict(perturbation="self2self"), []),
        (dict(start="shapes", features=0, steps=3), [0, 2]),
    ],
)
def test_the_share_of_the_signal_is_reported_where_it_is_known(small, tmp_path, options, steps):
    settings = dict(TINY, tomograms=(small["tomogram"],), output=str(tmp_path))
    train(TrainConfig(**dict(settings, **options)))
    rows = train_log.read_log(str(tmp_path / "log.csv"))
    assert [int(row["step"]) for row in rows if row["explained_power"]] == steps


def test_noise_is_too_much_where_the_response_is_negative():
    response = torch.tensor([0.4, 0.0, -0.04, -0.2])
    factors = validation.noise_factors(response, 0.75)
    assert factors[:3].tolist() == [1, 1, 1]
    excess = 1 / float(factors[3])  # (1 - c) / (1 + scale² c) is the response
    assert (1 - excess) / (1 + 0.75**2 * excess) == pytest.approx(-0.2)


def test_best_keeps_the_best_model_and_stops_when_waiting_is_in_vain():
    best = EarlyStopping()
    for step in range(50, 1001, 50):
        best.update(1 - step / 1250, 1.0, step, Scaled(float(step)))
        assert not best.should_stop(step, 0, False)
    for step in range(1050, 5000, 50):
        best.update(1.0, 1.0, step, Scaled(0.0))
        if best.should_stop(step, 0, False):
            break
    assert step == 1450  # 0.3 of the steps without a better check
    assert best.step == 1000 and float(best.model["factor"]) == 1000


@pytest.mark.parametrize(
    ("fall", "last"),
    [
        # Of 0.3 that the network explains, 0.006 are worth waiting for: 0.004 in 200 steps are not.
        (1e-3, 500),
        (1.6e-3, 5000),
        # Where it explains next to nothing, a ten-thousandth of the power is asked for.
        (0.0, 500),
    ],
)
def test_a_loss_that_hardly_falls_ends_the_training(fall, last):
    best = EarlyStopping()
    for step in range(300, 5001, 50):
        best.update(0.7 - fall * (step - 300) / 50, 1.0 if fall else 0.7, step, Scaled(float(step)))
        if best.should_stop(step, 0, False):
            break
    assert step == last
    assert best.step == (step if fall else 300)  # the model is the best all the same


def test_training_never_goes_on_for_ever():
    best = EarlyStopping()
    best.update(0.0, 1.0, stopping.MOST_STEPS, Scaled(1.0))
    assert best.should_stop(stopping.MOST_STEPS, 0, False)


@pytest.mark.parametrize(("learned", "least", "most"), [(False, 300, 150), (True, 60, 30)])
def test_a_small_tomogram_is_not_overfitted(learned, least, most):
    """Epochs end it, sooner where a network has learned before, but not within a least number of
    steps."""
    assert not EarlyStopping().should_stop(least - 1, most, learned)
    best = EarlyStopping()
    best.wait_from(least)
    assert [best.should_stop(least, most - some, learned) for some in (0, 1)] == [True, False]


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        dict(batch_size=1, features=8),
        dict(batch_size=1, features=0, start="shapes"),
        dict(batch_size=64),
        dict(batch_size=64, half_maps=True),
        dict(batch_size=64, half_maps=True, perturbation="noise2noise"),
    ],
)
def test_the_most_steps_are_where_a_training_ends_whatever_its_loss(phantom, options):
    """Half-maps show overfitting, so there epochs don't count."""
    settings = dict(TINY, steps=0, tomograms=(phantom["tomogram"],), output="unused")
    known = options.get("half_maps", False)
    halves = dict(half_maps=(phantom["odd"], phantom["even"])) if known else {}
    found = training.open_for_training(TrainConfig(**dict(settings, **dict(options, **halves))))

    def ends(step):
        found.step = step
        found.best.wait_from(step)  # as if the loss had just fallen
        return found.finished()

    most = next(step for step in itertools.count() if ends(step))
    assert found.most_steps() == most
    if options["batch_size"] == 64:
        assert (most == stopping.MOST_STEPS) == known


@pytest.fixture
def hasty(monkeypatch):
    """Checks every third step, and stops after few."""
    monkeypatch.setattr(state, "CHECK_EVERY", 3)
    monkeypatch.setattr(trainer, "CHECK_EVERY", 3)
    for name, value in (("LEAST_STEPS", 6), ("LEAST_PATIENCE", 3), ("MOST_STEPS", 12)):
        monkeypatch.setattr(stopping, name, value)


@pytest.mark.slow
def test_automatic_training_saves_its_best_model(phantom, tmp_path, hasty):
    train(
        TrainConfig(**dict(TINY, steps=0, tomograms=(phantom["tomogram"],), output=str(tmp_path)))
    )
    _, state = checkpoint.newest(str(tmp_path / "checkpoints"), pytest.fail)
    assert 6 <= state["step"] <= 12
    model = checkpoint.load(str(tmp_path / "model.pt"))
    assert model["step"] == state["best"]["step"]
    for name, value in model["model"].items():
        assert torch.equal(value, state["best"]["model"][name])
    rows = train_log.read_log(str(tmp_path / "log.csv"))
    checks = {
        int(row["step"]) + 1: float(row["validation_loss"])
        for row in rows
        if row["validation_loss"]
    }
    assert list(checks) == list(range(3, state["step"] + 1, 3))
    assert min((loss, step) for step, loss in checks.items())[1] == model["step"]


@pytest.mark.slow
def test_automatic_training_resumes_bit_for_bit(small, tmp_path, hasty):
    options = dict(TINY, steps=0, tomograms=(small["tomogram"],), checkpoint_every=3)
    train(TrainConfig(output=str(tmp_path / "whole"), **options))
    parts = tmp_path / "parts"
    train(TrainConfig(output=str(parts), **options))
    for path in (parts / "checkpoints").iterdir():
        if path.name not in ("step_00000003.pt", "step_00000006.pt"):
            path.unlink()
    (parts / "model.pt").unlink()
    train(TrainConfig(output=str(parts), resume=True, **options))
    assert_same_weights(tmp_path / "whole" / "model.pt", parts / "model.pt")


def test_a_number_of_steps_goes_on_from_an_automatic_training(small, tmp_path, hasty):
    """With all that is learned since, not with the best model of before."""
    options = dict(TINY, tomograms=(small["tomogram"],), output=str(tmp_path), checkpoint_every=3)
    train(TrainConfig(**dict(options, steps=0)))
    before = checkpoint.load(str(tmp_path / "model.pt"))["step"]
    train(TrainConfig(**dict(options, steps=20, resume=True)))
    assert before < checkpoint.load(str(tmp_path / "model.pt"))["step"] == 20


def test_an_automatic_training_goes_on_from_a_number_of_steps(small, tmp_path, hasty):
    """What nobody watched was not waited in vain."""
    options = dict(TINY, tomograms=(small["tomogram"],), output=str(tmp_path), checkpoint_every=3)
    train(TrainConfig(**dict(options, steps=8)))
    train(TrainConfig(**dict(options, steps=0, resume=True)))
    assert checkpoint.load(str(tmp_path / "model.pt"))["step"] > 8


def test_the_most_steps_of_an_automatic_training_are_reported(
    small, tmp_path, hasty, monkeypatch, capsys
):
    monkeypatch.setattr(stopping, "LEAST_STEPS", 13)
    train(TrainConfig(**dict(TINY, steps=0, tomograms=(small["tomogram"],), output=str(tmp_path))))
    assert "--steps auto ends after 12 steps" in capsys.readouterr().err


def test_flat_epochs_end_an_automatic_training_too(small, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(schedule, "FLAT_LOSS", 1e3)  # no epoch is better than the first
    options = dict(TINY, tomograms=(small["tomogram"],), output=str(tmp_path), stop_patience=2)
    model = train(TrainConfig(**dict(options, steps=0, batch_size=32)))
    assert checkpoint.load(model)["step"] < 12
    assert "--steps auto ends" not in capsys.readouterr().err
