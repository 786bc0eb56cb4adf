"""What changes in the course of a training: learning rate, averaged weights, early stop."""

import math

import torch

# Steps in which the learning rate rises from nothing.
WARMUP_STEPS = 10
# A training from random weights begins with so many times the learning rate.
FIRST_RATE = 8 / 3
# Steps in which what is above the rate falls to 1 / e.
SETTLING_STEPS = 60
# So many times the rate suits weights that have learned before, whose knowledge could be lost.
LEARNED_RATE = 2 / 3
# Epochs after which it is half of that: more epochs overfit a small tomogram
# (docs/history.md has what was measured).
HALVING_EPOCHS = 10
# The published schedule: after so many epochs without a lower loss, the rate is multiplied by this,
# until it is so low.
FLAT_EPOCHS = 10
FACTOR = 0.1
LOWEST_RATE = 1e-8
# A loss is lower if it is so much lower than the best.
FLAT_LOSS = 1e-4


def averaging_over(share):
    """Update rule of averaged weights: the mean over about the last ``share`` of the steps.

    For all weights in one call, which spares a GPU a hundred small ones.
    """

    def update(averaged, current, count):
        torch._foreach_lerp_(averaged, current, 1 / (1 + share * float(count)))

    return update


def course(config, steps, haste, epoch=1e9):
    """The learning rate of a step over ``config.learning_rate``, a function of the step.

    ``steps``: how many there will be, None if that is not known; ``haste``: how much of its fast
    start from random weights "settling" has, 0 to 1; ``epoch``: the steps of one.
    """

    def warmth(step):
        return min((step + 1) / WARMUP_STEPS, 1.0)

    def settling(step):
        return warmth(step) * (1 + haste * (FIRST_RATE - 1) * math.exp(-step / SETTLING_STEPS))

    def gentle(step):
        return LEARNED_RATE * warmth(step) / (1 + step / (HALVING_EPOCHS * epoch))

    def falling(step):
        return warmth(step) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1.0)))

    if config.schedule == "cosine":
        return falling
    if config.schedule == "settling":
        return gentle if config.pretrained() else settling
    return warmth


class EarlyStop:
    """Counts epochs whose loss has not fallen by FLAT_LOSS below the best."""

    def __init__(self):
        self.best, self.waited = float("inf"), 0

    def add(self, loss):
        """Take an epoch's mean loss."""
        if loss < self.best - FLAT_LOSS:
            self.best, self.waited = loss, 0
        else:
            self.waited += 1


class Schedule:
    """Learning rate and early stop: what changes with steps and with finished epochs."""

    def __init__(self, optimizer, config, steps, haste=1.0, epoch=1e9):
        """``steps``, ``haste`` and ``epoch`` as in :func:`course`."""
        self.optimizer, self.stop = optimizer, EarlyStop()
        self.patience = config.stop_patience
        self.losses = []
        self.plateau = self.by_step = None
        if config.schedule == "plateau":
            self.plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(
                optimizer, factor=FACTOR, patience=FLAT_EPOCHS, min_lr=LOWEST_RATE
            )
        else:
            self.by_step = torch.optim.lr_scheduler.LambdaLR(
                optimizer, course(config, steps, haste, epoch)
            )

    def scale(self, factor):
        """Multiply this and all later learning rates."""
        for group in self.optimizer.param_groups:
            group["lr"] *= factor
        if self.by_step:
            self.by_step.base_lrs = [rate * factor for rate in self.by_step.base_lrs]

    def after_step(self, loss, epoch_ended):
        """Take a step's loss; ``epoch_ended``: whether it was an epoch's last."""
        self.losses.append(loss)
        if self.by_step:
            self.by_step.step()
        if epoch_ended:
            mean = sum(self.losses) / len(self.losses)
            self.losses = []
            self.stop.add(mean)
            if self.plateau:
                self.plateau.step(mean)

    def stops(self):
        """Whether the loss has been flat for as many epochs as --stop-patience says."""
        return bool(self.patience) and self.stop.waited >= self.patience

    def state_dict(self):
        return {
            "losses": self.losses,
            "best": self.stop.best,
            "waited": self.stop.waited,
            "plateau": self.plateau.state_dict() if self.plateau else None,
            "by_step": self.by_step.last_epoch if self.by_step else None,
        }

    def load_state_dict(self, state):
        self.losses, self.stop.best, self.stop.waited = (
            state["losses"],
            state["best"],
            state["waited"],
        )
        if self.plateau:
            self.plateau.load_state_dict(state["plateau"])
        if self.by_step:
            self.by_step.last_epoch = state["by_step"]
