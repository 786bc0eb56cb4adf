"""What turns gradients into steps of the network's weights: Adam (published), or Muon."""
import torch

# Jordan et al. (2024): so steep at zero that five iterations do; singular values of 0.7 to 1.2 come
# out.
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM = 0.9
CHANGE = 0.2
TINY = 1e-30


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
    wide = [matrix / matrix.norm().clamp(min=TINY) for matrix in wide]
    first, third, fifth = COEFFICIENTS
    for side in sorted({len(matrix) for matrix in wide} - {1}):
        chosen = [number for number, matrix in enumerate(wide) if len(matrix) == side]
        grams = torch.stack([wide[number] @ wide[number].T for number in chosen])
        one = torch.eye(side, device=grams.device)
        product = one
        for _ in range(ITERATIONS):
            factor = first * one + third * grams + fifth * grams @ grams
            grams = factor @ grams @ factor
            product = factor @ product
        for number, left in zip(chosen, product):
            wide[number] = left @ wide[number]
    return [found if found.shape == matrix.shape else found.T
            for found, matrix in zip(wide, matrices)]


class Muon(torch.optim.Optimizer):
    """Steps are the gradients' running mean, made orthogonal layer by layer.

    So every direction of a layer's weights learns equally fast, those with small gradients, too
    (Jordan et al., 2024). Convolutions count as matrices (outputs, inputs x kernel), biases as one
    column. A step changes a layer's weights by CHANGE times the learning rate in the root mean
    square, about as much as one of Adam (Liu et al., arXiv:2502.16982).
    """

    def __init__(self, parameters, lr):
        super().__init__(parameters, dict(lr=lr))

    @torch.no_grad()
    def step(self, closure=None):
        """One step; returns what ``closure``, if there is one, returns."""
        with torch.enable_grad():
            loss = closure() if closure else None
        for group in self.param_groups:
            moved = [weight for weight in group["params"] if weight.grad is not None]
            directions = [self._direction(weight) for weight in moved]
            for weight, direction in zip(moved, orthogonalised(directions)):
                size = CHANGE * max(direction.shape) ** 0.5
                weight.sub_(group["lr"] * size * direction.reshape(weight.shape))
        return loss

    def _direction(self, weight):
        """Where the mean of a weight's gradients, brought up to date, leads: a matrix."""
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        mean = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        # Nesterov's: a step ahead of the mean
        return weight.grad.lerp(mean, MOMENTUM).reshape(len(weight), -1)


def build(config, network, device):
    """The optimizer that a TrainConfig asks for, of a network on a device."""
    if config.optimizer == "muon":
        return Muon(network.parameters(), lr=config.learning_rate)
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate,
                            fused=device.type == "cuda")
