"""When a training has learned what there is to learn."""

# Steps between two validations, the least of a training, and the most.
CHECK_EVERY = 50
LEAST_STEPS = 300
MOST_STEPS = 5000
# More epochs overfit a small tomogram, and the validation loss does not show it where it rests on
# what the tomogram's noise is taken to be.
MOST_EPOCHS = 150
# The least steps and the most epochs are divided by this for a network that has learned before.
LEARNED_PART = 5
# Patience: so many steps, or this share of all of them if that is more.
LEAST_PATIENCE = 200
PATIENCE_SHARE = 0.3
# Minimum improvement: the first share of what the network explains of the targets, or the second of
# their power if that is more.
LEAST_IMPROVEMENT = 0.02
LEAST_OF_POWER = 1e-4


def limits(learned):
    """The least number of steps and the most epochs of a training that ends by itself; ``learned``:
    whether its network has learned before."""
    return (
        (LEAST_STEPS // LEARNED_PART, MOST_EPOCHS // LEARNED_PART)
        if learned
        else (LEAST_STEPS, MOST_EPOCHS)
    )


class EarlyStopping:
    """The best model so far by its loss on held-out parts, and whether to go on."""

    def __init__(self):
        self.loss, self.step, self.model = float("inf"), 0, None
        self.marked, self.since = float("inf"), 0
        # What the network had before the first step, and what it had last.
        self.started, self.last = float("inf"), float("inf")
        self.start = None  # the weights before the first step

    def update(self, loss, power, step, network):
        """Take the result of a :class:`~f2fd_core.training.validation.Validation`."""
        self.last = loss
        worth = max(LEAST_IMPROVEMENT * (power - loss), LEAST_OF_POWER * power)
        if loss < self.marked - worth:
            self.marked, self.since = loss, step
        if loss < self.loss:
            self.loss, self.step = loss, step
            self.model = {
                name: value.detach().cpu().clone() for name, value in network.state_dict().items()
            }
        if step == 0:
            self.started, self.start = loss, self.model

    def has_gained(self):
        """Whether the last validation found the network no worse than before the first step."""
        return self.last <= self.started

    def wait_from(self, step):
        """Count no step before this one as waited in vain."""
        self.since = step

    def state_dict(self):
        return dict(vars(self))

    def load_state_dict(self, state):
        self.loss, self.step, self.model = state["loss"], state["step"], state["model"]
        # Earlier checkpoints have the best loss only.
        self.marked, self.since = state.get("marked", self.loss), state.get("since", self.step)
        self.started, self.last = (state.get(name, float("inf")) for name in ("started", "last"))
        self.start = state.get("start")

    def at_limit(self, step):
        """Whether there are as many steps as there may be."""
        return step >= MOST_STEPS

    def waited(self, step):
        """Whether the loss has hardly fallen for too long."""
        return step - self.since >= max(LEAST_PATIENCE, PATIENCE_SHARE * step)

    def should_stop(self, step, epochs, learned):
        """Whether going on is not worth it after so many steps and epochs: there were enough, or
        it has :meth:`waited`. ``learned``: whether the network has learned before."""
        least, most_epochs = limits(learned)
        return self.at_limit(step) or step >= least and (self.waited(step) or epochs >= most_epochs)
