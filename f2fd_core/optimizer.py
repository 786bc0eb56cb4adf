"""What turns gradients into steps of the network's weights: Adam (published), or Muon."""
import torch

# Jordan et al. (2024): so steep at zero that five iterations do; singular values of 0.7 to 1.2 come
# out.
COEFFICIENTS, ITERATIONS = (3.4445, -4.7750, 2.0315), 5
MOMENTUM = 0.9
CHANGE = 0.2
TINY = 1e-30


def orthogonalised(matrix):
    """A matrix, 2D, with its singular vectors kept and its singular values made about 1.

    Newton-Schulz iteration of fifth order (Jordan et al., "Muon: an optimizer for hidden layers in
    neural networks", 2024): products of matrices only. A matrix of one row or column comes out at
    length 1, zeros as zeros; how large the matrix is does not matter.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonalised(matrix.T).T
    values = matrix / matrix.norm().clamp(min=TINY)
    if len(values) > 1:
        first, third, fifth = COEFFICIENTS
        for _ in range(ITERATIONS):
            gram = values @ values.T
            values = first * values + (third * gram + fifth * gram @ gram) @ values
    return values


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
            for weight in group["params"]:
                self._move(weight, group["lr"])
        return loss

    def _move(self, weight, rate):
        if weight.grad is None:
            return
        state = self.state[weight]
        if not state:
            state["momentum"] = torch.zeros_like(weight)
        mean = state["momentum"].lerp_(weight.grad, 1 - MOMENTUM)
        # Nesterov's: a step ahead of the mean
        direction = weight.grad.lerp(mean, MOMENTUM).reshape(len(weight), -1)
        size = CHANGE * max(direction.shape) ** 0.5
        weight.sub_(rate * size * orthogonalised(direction).reshape(weight.shape))


def build(config, network, device):
    """The optimizer that a TrainConfig asks for, of a network on a device."""
    if config.optimizer == "muon":
        return Muon(network.parameters(), lr=config.learning_rate)
    return torch.optim.Adam(network.parameters(), lr=config.learning_rate,
                            fused=device.type == "cuda")
