"""The microscope's contrast transfer function."""

import math

import torch


def contrast_transfer(
    frequency: torch.Tensor,
    defocus: float,
    phase_shift: float = 0.0,
    voltage: float = 300.0,
    spherical_aberration: float = 2.7,
    amplitude_contrast: float = 0.07,
) -> torch.Tensor:
    """sin(chi) at spatial frequencies (1/Å): positive at first, then oscillating.

    ``defocus`` in µm (positive: underfocus), ``phase_shift`` of a phase plate in degrees,
    ``voltage`` in kV, ``spherical_aberration`` in mm. The phase is that of Rohou & Grigorieff
    (J. Struct. Biol. 192 (2015) 216).
    """
    volts = voltage * 1e3
    wavelength = 12.2643 / math.sqrt(volts + 0.97845e-6 * volts**2)
    square = frequency**2
    chi = (
        math.pi * wavelength * defocus * 1e4 * square
        - math.pi / 2 * spherical_aberration * 1e7 * wavelength**3 * square**2
    )
    return (chi + math.asin(amplitude_contrast) + math.radians(phase_shift)).sin()
