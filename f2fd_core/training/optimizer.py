"""What turns gradients into steps of the network's weights: Adam (published), or Muon."""

import inspect

import torch

from f2fd_core.fourier import TINY

# Of Jordan et al. (2024): so steep at zero that five iterations do; singular values of 0.7 to 1.2
# come out.
COEFFICIENTS = (3.4445, -4.7750, 2.0315)
ITERATIONS = 5
# The share of the running mean that is kept at a step.
MOMENTUM = 0.9
# The root mean square of the change of a layer's weights, over the learning rate.
CHANGE = 0.2


def orthogonalised(matrices):
    """Matrices, 2D, with their singular vectors kept and their singular values made about 1.

    Newton-Schulz iteration of fifth order (Jordan et al., "Muon: an optimizer for hidden layers in
    neural networks", 2024): products of matrices only. Each of its factors is a polynomial of the
    matrix times its transpose, so it needs only that until the last product; those of one size,
    over all matrices, go through it together, which spares a GPU hundreds of small launches. A
    matrix of one row or column comes out at length 1, zeros as zeros; how large a matrix is does
    not matter.
    """
    wide = [matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T for matrix in matrices]
    norms = torch.stack(torch._foreach_norm(wide)).clamp(min=TINY)
    wide = list(torch._foreach_div(wide, list(norms)))
    first, third, fifth = COEFFICIENTS
    for side in sorted({len(matrix) for matrix in wide} - {1}):
        chosen = [number for number, matrix in enumerate(wide) if len(matrix) == side]
        grams = torch.stack([wide[number] @ wide[number].T for number in chosen])
        one = torch.eye(side, device=grams.device)
        product = one.expand_as(grams)
        for number in range(ITERATIONS):
            factor = torch.baddbmm(
                torch.add(first * one, grams, alpha=third), grams, grams, alpha=fifth
            )
            product = factor @ product if number else factor
            if number < ITERATIONS - 1:
                grams = factor @ grams @ factor
        for number, left in zip(chosen, product):
            wide[number] = left @ wide[number]
    return [
        found if found.shape == matrix.shape else found.T for found, matrix in zip(wide, matrices)
    ]


class Muon(torch.optim.Optimizer):
    """Steps are the gradients' running mean, made orthogonal layer by layer.

    So every direction of a layer's weights learns equally fast, those with small gradients, too
    (Jordan et al., 2024). Convolutions count as matrices (outputs, inputs x kernel), biases as one
    column. A step changes a layer's weights by CHANGE times the learning rate in the root mean
    square, about as much as one of Adam (Liu et al., arXiv:2502.16982).
    """

    # As they are in PyTorch they import its compiler, which takes seconds.
    add_param_group = inspect.unwrap(torch.optim.Optimizer.add_param_group)
    zero_grad = inspect.unwrap(torch.optim.Optimizer.zero_grad)
    state_dict = inspect.unwrap(torch.optim.Optimizer.state_dict)
    load_state_dict = inspect.unwrap(torch.optim.Optimizer.load_state_dict)

    def __init__(self, parameters, lr):
        super().__init__(parameters, dict(lr=lr))

    @torch.no_grad()
    def step(self, closure=None):
        """One step; returns what ``closure``, if there is one, returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            weights = [weight for weight in group["params"] if weight.grad is not None]
            if not weights:
                continue
            gradients = [weight.grad for weight in weights]
            for weight in weights:
                if not self.state[weight]:
                    self.state[weight]["momentum"] = torch.zeros_like(weight)
            means = [self.state[weight]["momentum"] for weight in weights]
            torch._foreach_lerp_(means, gradients, 1 - MOMENTUM)
            # Nesterov's: a step ahead of the mean
            ahead = torch._foreach_lerp(gradients, means, MOMENTUM)
            found = orthogonalised([matrix.reshape(len(matrix), -1) for matrix in ahead])
            sizes = [group["lr"] * CHANGE * max(matrix.shape) ** 0.5 for matrix in found]
            torch._foreach_mul_(found, sizes)
            torch._foreach_sub_(
                weights, [change.reshape(weight.shape) for change, weight in zip(found, weights)]
            )
        return loss


def build(config, network, device):
    """The optimizer that a TrainConfig asks for, of a network on a device."""
    if config.optimizer == "muon":
        return Muon(network.parameters(), lr=config.learning_rate)
    return torch.optim.Adam(
        network.parameters(), lr=config.learning_rate, fused=device.type == "cuda"
    )
