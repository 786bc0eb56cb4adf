"""Training losses on predictions and targets of shape (N, 1, Z, Y, X)."""


def mean_squared_error(prediction, target):
    """Mean over all voxels of the squared difference."""
    return (prediction - target).square().mean()


def l2_norm(prediction, target):
    """Unsquared L2 norm of each sample's difference, mean over the batch (published)."""
    return (prediction - target).flatten(1).norm(dim=1).mean()


def total_variation(volumes):
    """Anisotropic total variation: mean absolute difference of neighbours, summed over the axes."""
    return sum(volumes.diff(dim=axis).abs().mean() for axis in (-3, -2, -1))


def training_loss(config):
    """The loss that a TrainConfig asks for, as a function of (prediction, target)."""
    distance = {"mse": mean_squared_error, "l2norm": l2_norm}[config.loss]
    if config.tv_weight == 0:
        return distance
    return lambda prediction, target: (distance(prediction, target)
                                       + config.tv_weight * total_variation(prediction))
