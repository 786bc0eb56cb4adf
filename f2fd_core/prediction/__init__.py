"""From a model to a denoised tomogram, tile by tile."""
