"""When a training has learned what there is to learn: measured on parts that it never learns from.

The loss of an independent pair differs from the error against the unknown signal by a constant
(Noise2Noise), so on voxels whose targets the network has not seen it is an honest measure.
"""
import numpy as np
import torch

from f2fd_core.device import autocast
from f2fd_core.randomness import Randomness, derived_seed
from f2fd_core.volume import reflected

HOLD_STREAM, VALIDATION_STREAM = 6, 7
HELD_SHARE, MAXIMUM_HELD = 0.5, 24
CHECK_EVERY, LEAST_STEPS, MOST_STEPS = 50, 300, 5000
# After more epochs a small tomogram is learned by heart, and looks it: the loss on held-out parts,
# whose noise is what the tomogram's is taken to be, does not tell. A network that has learned
# before needs a third of the least steps and the most epochs.
MOST_EPOCHS, LEARNED_PART = 150, 3
# Whether waiting is worth it: within so many steps, and this share of all, the loss has to fall by
# more than these shares of what the network explains of the targets, and of their power.
LEAST_PATIENCE, PATIENCE_SHARE = 200, 0.3
WORTH_WAITING, NOTHING = 0.02, 1e-4
PAIRS = 2


def limits(learned):
    """The least number of steps and the most epochs of a training that ends by itself; ``learned``:
    whether its network has learned before."""
    return (LEAST_STEPS // LEARNED_PART, MOST_EPOCHS // LEARNED_PART) if learned else (
        LEAST_STEPS, MOST_EPOCHS)


class HeldOut:
    """Cubes in the middle of some grid patches, whose voxels are no targets in the training."""

    def __init__(self, shapes, patches, patch_size, seed):
        """``shapes`` (Z, Y, X) of the tomograms and their grid ``patches`` (see
        :func:`~f2fd_core.patches.all_patches`); the cubes are half as wide as a patch."""
        self.shapes, self.patch_size = shapes, patch_size
        count = min(MAXIMUM_HELD, -(-len(patches) // int(1 / HELD_SHARE)))
        generator = torch.Generator().manual_seed(derived_seed(seed, HOLD_STREAM))
        chosen = torch.randperm(len(patches), generator=generator)[:count].tolist()
        self.patches = [patches[number] for number in sorted(chosen)]
        self.seed = seed

    def _inner(self):
        quarter = self.patch_size // 4
        return slice(quarter, self.patch_size - quarter)

    def weights(self, index, start):
        """1 where a patch of tomogram ``index`` at ``start`` may be learned from, 0 in the cubes.

        Where the patch reaches beyond the volume, its voxels count as those that they mirror.
        """
        size, inner = self.patch_size, self._inner()
        weights = np.ones((size,) * 3, np.float32)
        positions = [reflected(first, size, length)
                     for first, length in zip(start, self.shapes[index])]
        for other, corner in self.patches:
            if other == index:
                weights[np.ix_(*((position >= first + inner.start) & (position < first + inner.stop)
                                 for position, first in zip(positions, corner)))] = 0
        return torch.from_numpy(weights)

    @torch.no_grad()
    def loss(self, network, perturbations, device, dtype):
        """Mean squared error in the cubes, always over the same pairs, and that of predicting 0."""
        was_training = network.training
        network.eval()
        inner = (Ellipsis,) + (self._inner(),) * 3
        total = power = count = 0.0
        random = Randomness.of(device, self.seed, VALIDATION_STREAM)
        for index, start in self.patches:
            pairs = perturbations[index].pairs(start, (self.patch_size,) * 3, PAIRS, random)
            with autocast(dtype, device):
                prediction = network(pairs.inputs.unsqueeze(1).contiguous(
                    memory_format=torch.channels_last_3d))[:, 0]
            targets = pairs.targets[inner]
            weights = torch.ones_like(targets) if pairs.weights is None else pairs.weights[inner]
            total += float(((prediction.float()[inner] - targets).square() * weights).sum())
            power += float((targets.square() * weights).sum())
            count += float(weights.sum())
        network.train(was_training)
        return total / max(count, 1.0), power / max(count, 1.0)


class Best:
    """The best model so far by its loss on held-out parts, and whether to go on."""

    def __init__(self):
        self.loss, self.step, self.model = float("inf"), 0, None
        self.marked, self.since = float("inf"), 0

    def offer(self, loss, power, step, network):
        """Take a check's result: see :meth:`HeldOut.loss`."""
        worth = max(WORTH_WAITING * (power - loss), NOTHING * power)
        if loss < self.marked - worth:
            self.marked, self.since = loss, step
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.model = {name: value.detach().cpu().clone()
                          for name, value in network.state_dict().items()}

    def forget(self):
        """Start the comparison anew: another noise spectrum makes other losses."""
        self.loss = self.marked = float("inf")

    def wait_from(self, step):
        """Count no step before this one as waited in vain."""
        self.since = step

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        self.loss, self.step, self.model = state["loss"], state["step"], state["model"]
        # Checkpoints of before tell the best loss only.
        self.marked, self.since = state.get("marked", self.loss), state.get("since", self.step)

    def at_limit(self, step):
        """Whether there are as many steps as there may be."""
        return step >= MOST_STEPS

    def reached(self, step, epochs, learned):
        """Whether going on is not worth it after so many steps and epochs: there were enough, or
        the loss has hardly fallen for too long. ``learned``: whether the network has before."""
        least, most_epochs = limits(learned)
        waited = step - self.since >= max(LEAST_PATIENCE, PATIENCE_SHARE * step)
        return self.at_limit(step) or step >= least and (waited or epochs >= most_epochs)
