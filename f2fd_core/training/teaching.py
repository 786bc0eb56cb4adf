"""Lessons by the model so far, at the noise that the tomogram itself has."""

import torch

from f2fd_core.runtime.device import autocast
from f2fd_core.training.stopping import limits

# Of so many patches one is a lesson.
EVERY = 4


def taught(training, batch):
    """A step's :class:`~f2fd_core.data.batches.Batch`, in which some pairs have become lessons.

    The inputs of noise-matched pairs, X + a n, have 1 + a² times the noise of the tomogram X that
    is denoised in the end. In a lesson the target is what the model so far makes of X, and the
    input that and n, noise as strong as the tomogram's, nothing of which is in the target
    (iterative data refinement, Zhang et al., CVPR 2022; with averaged weights as the teacher,
    Tarvainen & Valpola, NeurIPS 2017). Lessons alone would hand on what a model removes of the
    signal, so most patches remain independent pairs.
    """
    step = training.step
    if batch.scales is None or step < limits(training.config.pretrained())[0]:
        return batch
    numbers = [number for number, _ in training.group.shard(training.order.batch(step))]
    pairs = len(batch.inputs) // len(numbers)
    chosen = [
        row
        for row in range(len(batch.inputs))
        if (step + numbers[row // pairs]) % EVERY == EVERY - 1
    ]
    if not chosen:
        return batch
    scale = batch.scales[chosen]
    inputs, targets = batch.inputs.clone(), batch.targets.clone()
    itself = (inputs[chosen] + scale**2 * targets[chosen]) / (1 + scale**2)
    noise = (inputs[chosen] - itself) / scale
    targets[chosen] = _predicted(training, itself)
    inputs[chosen] = targets[chosen] + noise
    return batch._replace(inputs=inputs, targets=targets)


@torch.no_grad()
def _predicted(training, inputs):
    """What the model so far makes of inputs (patches, 1, Z, Y, X)."""
    model = training.model()
    learning = model.training
    model.eval()
    with autocast(training.dtype, training.device):
        outputs = model(inputs.contiguous(memory_format=torch.channels_last_3d)).float()
    model.train(learning)
    return outputs
