"""Learning rates in the course of a training."""

import csv

import numpy as np
import pytest
import torch

from f2fd_core import TrainConfig
from f2fd_core.training.schedule import (
    FIRST_RATE,
    HALVING_EPOCHS,
    LEARNED_RATE,
    WARMUP_STEPS,
    Schedule,
    course,
)


def test_plateau_divides_the_rate_and_patience_stops():
    network = torch.nn.Linear(1, 1)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    schedule = Schedule(optimizer, TrainConfig(schedule="plateau", stop_patience=15), 1000)
    rates = []
    for epoch in range(16):
        schedule.after_step(1.0 if epoch else 2.0, epoch_ended=True)
        rates.append(optimizer.param_groups[0]["lr"])
    # Best at the second epoch, then ten flat ones are waited for.
    assert rates[11] == pytest.approx(1e-3) and rates[12] == pytest.approx(1e-4)
    assert not schedule.stops()
    schedule.after_step(1.0, epoch_ended=True)
    assert schedule.stops()


def rates_of(haste=1.0, **options):
    """Learning rates of 2000 steps, each over the one that is asked for."""
    config = TrainConfig(steps=2000, learning_rate=1e-3, **options)
    optimizer = torch.optim.Adam(torch.nn.Linear(1, 1).parameters(), lr=config.learning_rate)
    schedule = Schedule(optimizer, config, config.steps, haste)
    rates = []
    for _ in range(config.steps):
        rates.append(optimizer.param_groups[0]["lr"] / config.learning_rate)
        optimizer.step()
        schedule.after_step(1.0, epoch_ended=False)
    return np.array(rates)


@pytest.mark.parametrize(
    ("schedule", "first", "last"),
    [("constant", 1, 1), ("cosine", 1, 0), ("settling", FIRST_RATE, 1)],
)
def test_a_schedule_warms_up_and_then_never_rises(schedule, first, last):
    rates = rates_of(schedule=schedule, start="random")
    assert 0 < rates[0] < 0.2 * first
    assert rates.max() == pytest.approx(first, rel=0.1)
    assert np.argmax(rates) == WARMUP_STEPS - 1 and np.all(np.diff(rates[WARMUP_STEPS:]) <= 0)
    assert rates[-1] == pytest.approx(last, abs=1e-3)


def test_a_start_as_fast_as_the_noise_is_enough_for():
    highest = [
        rates_of(haste, schedule="settling", start="random").max() for haste in (0.0, 0.5, 1.0)
    ]
    assert highest[0] == 1 and highest[1] == pytest.approx((highest[0] + highest[2]) / 2)


def test_a_small_tomogram_is_not_learned_in_haste(tiny_model):
    with open(str(tiny_model / "log.csv"), newline="") as stream:
        rates = [float(row["learning_rate"]) for row in csv.DictReader(stream)]
    rate = TrainConfig().learning_rate
    assert rates == pytest.approx([rate * (step + 1) / WARMUP_STEPS for step in range(len(rates))])


@pytest.mark.parametrize("options", [dict(initial_model="model.pt"), dict(start="shapes")])
def test_what_a_network_knows_is_not_lost_in_a_fast_start(options):
    """From weights that have learned before, the rate is lower throughout."""
    onwards = rates_of(schedule="settling", **options)
    np.testing.assert_allclose(onwards, LEARNED_RATE * rates_of(schedule="constant"), rtol=1e-5)
    # More epochs overfit a small tomogram: with them the rate falls.
    falling = course(TrainConfig(schedule="settling", **options), 100, 1.0, epoch=4)
    assert falling(HALVING_EPOCHS * 4) == pytest.approx(LEARNED_RATE / 2)
    assert falling(9 * HALVING_EPOCHS * 4) == pytest.approx(LEARNED_RATE / 10)
    assert np.all(onwards < rates_of(0.0, schedule="settling", start="random"))
