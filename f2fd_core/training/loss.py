"""Training losses on predictions and targets of shape (N, 1, Z, Y, X)."""


def mean_squared_error(prediction, target, weights=None):
    """Mean over all voxels of the squared difference, weighted by ``weights`` of 0 to 1.

    Where no voxel counts, which can happen to a batch, it is 0.
    """
    square = (prediction - target).square()
    if weights is None:
        return square.mean()
    return (weights * square).sum() / weights.sum().clamp(min=1)


def l2_norm(prediction, target, weights=None):
    """Unsquared L2 norm of each sample's (weighted) difference, mean over the batch (published)."""
    difference = prediction - target if weights is None else weights * (prediction - target)
    return difference.flatten(1).norm(dim=1).mean()


def total_variation(volumes):
    """Anisotropic total variation: mean absolute difference of neighbours, summed over the axes."""
    return sum(volumes.diff(dim=axis).abs().mean() for axis in (-3, -2, -1))


def training_loss(config):
    """The loss that a TrainConfig asks for, as a function of (prediction, target, weights)."""
    distance = {"mse": mean_squared_error, "l2norm": l2_norm}[config.loss]
    if config.tv_weight == 0:
        return distance
    return lambda prediction, target, weights=None: (
        distance(prediction, target, weights) + config.tv_weight * total_variation(prediction)
    )
