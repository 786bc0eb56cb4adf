"""The microscope's contrast transfer function; 300 kV, Cs 2.7 mm, amplitude contrast 0.07."""

import math

VOLTAGE_KV, SPHERICAL_ABERRATION_MM, AMPLITUDE_CONTRAST = 300.0, 2.7, 0.07


def contrast_transfer(frequency, defocus, phase_shift=0.0):
    """sin(chi) at spatial frequencies (1/Å, a tensor): positive at first, then oscillating.

    ``defocus`` in µm (positive: underfocus), ``phase_shift`` of a phase plate in degrees. The
    phase is that of Rohou & Grigorieff (J. Struct. Biol. 192 (2015) 216).
    """
    volts = VOLTAGE_KV * 1e3
    wavelength = 12.2643 / math.sqrt(volts + 0.97845e-6 * volts**2)
    square = frequency**2
    chi = (
        math.pi * wavelength * defocus * 1e4 * square
        - math.pi / 2 * SPHERICAL_ABERRATION_MM * 1e7 * wavelength**3 * square**2
    )
    return (chi + math.asin(AMPLITUDE_CONTRAST) + math.radians(phase_shift)).sin()
