"""How a network learns: state, steps, validation, stopping, log."""
