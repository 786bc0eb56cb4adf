"""Lessons by the model so far."""

import pytest
import torch
from conftest import TINY

from f2fd_core import TrainConfig
from f2fd_core.commands import train as training
from f2fd_core.training import teaching
from f2fd_core.training.stopping import limits


def opened(tomogram, **options):
    settings = dict(TINY, tomograms=(tomogram,), output="unused", batch_size=8, augmentation="none")
    return training.open_for_training(TrainConfig(**dict(settings, **options)))


class Halving(torch.nn.Module):
    """What a model would make of inputs, if it halved them; notes how often it was asked."""

    asked = 0

    def forward(self, values):
        self.asked += len(values)
        return values / 2


@pytest.fixture
def halving(monkeypatch):
    model = Halving()
    monkeypatch.setattr("f2fd_core.training.state.Training.model", lambda self: model)
    return model


def test_lessons_are_the_models_result_with_noise_as_strong_as_the_tomograms(small, halving):
    run = opened(small["tomogram"], patch_shift=0)
    run.step = limits(run.config.pretrained())[0]
    before = run.batch(run.step)
    after = teaching.taught(run, before)
    (perturbation,) = run.perturbations
    changed = [row for row in range(8) if not torch.equal(before.targets[row], after.targets[row])]
    assert len(changed) == halving.asked == 8 / teaching.EVERY
    patches = run.order.batch(run.step)
    for row in range(8):
        if row not in changed:
            assert torch.equal(before.inputs[row], after.inputs[row])
            continue
        _, start = patches[row]
        itself = perturbation.copies_of_itself(start, (16,) * 3)
        torch.testing.assert_close(after.targets[row], itself / 2, rtol=0, atol=1e-4)
        # The same synthetic noise as in the pair, without the noise scale.
        noise = (before.inputs[row] - itself) / perturbation.scale
        torch.testing.assert_close(after.inputs[row] - after.targets[row], noise, rtol=0, atol=1e-4)


def test_every_patch_of_a_batch_is_a_lesson_in_some_step(small, halving):
    """In several processes, each has as many as the others."""
    run = opened(small["tomogram"])
    first = limits(run.config.pretrained())[0]
    lessons = []
    for run.step in range(first, first + teaching.EVERY):
        before = run.batch(run.step)
        after = teaching.taught(run, before)
        lessons += [
            row for row in range(8) if not torch.equal(before.inputs[row], after.inputs[row])
        ]
    assert sorted(lessons) == list(range(8))


@pytest.mark.parametrize(
    ("options", "late"),
    [
        (dict(), -1),
        (dict(start="random"), -1),
        (dict(perturbation="fourier_masks", pool_size=2), 500),
        (dict(perturbation="self2self"), 500),
        (dict(half_maps=True), 500),
    ],
)
def test_no_lessons_before_there_is_a_teacher_nor_from_other_pairs(small, halving, options, late):
    if options.pop("half_maps", False):
        options.update(tomograms=(), half_maps=(small["odd"], small["even"]))
    run = opened(small["tomogram"], **options)
    run.step = limits(run.config.pretrained())[0] + late
    batch = run.batch(run.step)
    assert teaching.taught(run, batch) is batch and not halving.asked
