"""All at once: choose, train, denoise, check, show."""
