"""Random numbers that depend on a seed and a place alone, whoever draws them and when."""

import enum
from typing import NamedTuple, Optional

import numpy as np
import torch


class Stream(enum.IntEnum):
    """What random numbers are drawn for: those of one stream say nothing about another's.

    These are part of the seeds: a run that is resumed draws the same only if they stay.
    """

    TRAINING_COPIES = 0
    PREDICTION_COPIES = 1
    ORDER_OF_PATCHES = 2
    STEP = 3
    INITIAL_WEIGHTS = 4
    TILE = 5
    HELD_OUT = 6
    VALIDATION = 7
    PROBE = 9
    NULL_TEST = 10
    WEDGE_TEST = 11
    HIDDEN = 12


def derived_seed(*numbers):
    """A 63-bit seed that depends on all the numbers, in order."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> np.uint64(1))


class Randomness(NamedTuple):
    """Random generators for choices (``host``) and for arrays (``device``); None: PyTorch's own."""

    host: Optional[torch.Generator] = None
    device: Optional[torch.Generator] = None

    @classmethod
    def of(cls, device, *numbers):
        """Generators on the CPU and on ``device`` that depend on all the numbers, in order."""
        seed = derived_seed(*numbers)
        host = torch.Generator().manual_seed(seed)
        on_cpu = torch.device(device).type == "cpu"
        return cls(host, host if on_cpu else torch.Generator(device).manual_seed(seed))


GLOBAL = Randomness()
