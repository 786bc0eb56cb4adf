"""The missing wedge: what of Fourier space a tilt series measures, and what it leaves out.

A projection at the tilt t measures the plane of Fourier space through the tilt axis that is tilted
by t (projection-slice theorem). So in every plane across the tilt axis the directions between the
first and the last tilt are measured, whatever the frequency along the axis; here such a plane is
(depth, across), and a tilt range is (first, last), the angles in degrees of its directions to
"across", as the plane's own transform has them.
"""

import math

import numpy as np
import torch

from f2fd_core.config import UserError, flag

# The spectrum shows the tilt range in this band (cycles per voxel), where rings are wide enough for
# angles to be distinguished and there is power in any tomogram.
BAND = (0.1, 0.3)
# In bins of so many degrees.
BIN = 2.0
# Up to so many degrees all is measured.
NEAR = 30.0
# The tilt range ends where the power falls below this share of that.
LEAST_POWER = 0.5
# Ranges that end before, or later, are none of a tilt series; degrees.
SMALLEST_RANGE = 35.0
LARGEST_RANGE = 85.0
# So many planes show it.
PLANES = 64


def angles(depth, width):
    """Angles (degrees, -90 to 90) of the coefficients of the rfft2 grid of planes (depth, width) to
    the second axis, and their distances from zero frequency in cycles per voxel."""
    z, x = torch.fft.fftfreq(depth)[:, None], torch.fft.rfftfreq(width)[None, :]
    return torch.rad2deg(torch.atan2(z, x)).clamp(-90, 90), torch.sqrt(z**2 + x**2)


def measured(depth, width, tilt_range, turned=False):
    """Which coefficients of the rfft2 grid of planes (depth, width) are measured, booleans.

    ``turned``: of a tomogram that was turned about the tilt axis by 90 degrees, so that its depth
    lies across. The half of a coefficient on either side counts as measured.
    """
    z, x = torch.fft.fftfreq(depth)[:, None], torch.fft.rfftfreq(width)[None, :]
    along, across, length = (x, z, width) if turned else (z, x, depth)
    low, high = (math.tan(math.radians(angle)) for angle in tilt_range)
    reach, along = across.abs(), torch.where(across < 0, -along, along)  # the same at k and -k

    def within(along):
        return (along <= high * reach + 0.5 / length) & (along >= low * reach - 0.5 / length)

    # A coefficient at Nyquist stands for both signs of its frequency.
    nyquist = (z == -0.5) | (x == 0.5)
    return within(along) & (within(-along) | ~nyquist)


def part(planes, chosen):
    """What planes (depth, count, width), a float32 tensor, have of the coefficients ``chosen``,
    booleans on the rfft2 grid of (depth, width)."""
    spectrum = torch.fft.rfft2(planes, dim=(0, 2))
    spectrum *= chosen[:, None].to(planes.device)
    return torch.fft.irfft2(spectrum, s=(planes.shape[0], planes.shape[2]), dim=(0, 2))


def filled(planes, predicted, tilt_range):
    """``planes`` (depth, count, width), with what is ``predicted``, of the same shape, in the
    directions that the tilt range leaves out."""
    left_out = ~measured(planes.shape[0], planes.shape[2], tilt_range)
    return planes + part(predicted - planes, left_out)


def tilt_range_of(volume, stated=0.0):
    """The (first, last) tilt of a standardised volume in degrees: plus and minus what the user has
    ``stated``; 0: as its spectrum shows them.

    Parameters
    ----------
    volume : Standardised
        See :class:`~f2fd_core.data.volume.Standardised`; ``axes`` say how it lies.

    Raises
    ------
    UserError
        If no missing wedge shows.
    """
    if stated:
        return -stated, stated
    depth, axis, across = volume.axes
    power = 0.0
    chosen = np.linspace(0, volume.shape[axis] - 1, min(volume.shape[axis], PLANES))
    tapers = [
        np.hanning(volume.shape[side] + 2)[1:-1].astype(np.float32) for side in (depth, across)
    ]
    for place in np.unique(chosen.round().astype(int)):
        start, size = [0, 0, 0], list(volume.shape)
        start[axis], size[axis] = int(place), 1
        plane = np.transpose(volume.region(start, size), volume.axes)[:, 0]
        tapered = torch.from_numpy((plane - plane.mean()) * tapers[0][:, None] * tapers[1])
        power = power + torch.fft.rfft2(tapered).abs() ** 2
    return _edges(power, volume)


def _edges(power, volume):
    """The tilt range that the mean ``power`` of planes shows, on their rfft2 grid."""
    depth, width = (volume.shape[axis] for axis in volume.axes[::2])
    angle, distance = angles(depth, width)
    band = (distance >= BAND[0]) & (distance < BAND[1])
    # Relative to the ring, so that the spectrum's fall from low to high frequencies is no matter.
    ring = (distance * min(depth, width)).long()
    sums = [
        torch.zeros(int(ring.max()) + 1).index_add_(0, ring.flatten(), values.flatten())
        for values in (power, torch.ones_like(power))
    ]
    relative = power / (sums[0] / sums[1].clamp(min=1))[ring].clamp(min=1e-30)
    bins = int(180 / BIN)
    place = ((angle + 90) / BIN).long().clamp(max=bins - 1)[band]
    totals = [
        torch.zeros(bins).index_add_(0, place, values)
        for values in (relative[band], torch.ones_like(place, dtype=torch.float32))
    ]
    some = (totals[1] > 0).numpy()  # of small planes no coefficient lies in some bins
    by_angle = (totals[0] / totals[1].clamp(min=1)).numpy()[some]
    centres = ((np.arange(bins) + 0.5) * BIN - 90)[some]
    level = LEAST_POWER * np.median(by_angle[np.abs(centres) < NEAR])
    found = []
    for sign in (-1, 1):  # outwards from "across" to where the power falls below the level
        outwards = np.argsort(sign * centres)
        outwards = outwards[sign * centres[outwards] > NEAR]
        beyond = np.flatnonzero(by_angle[outwards] < level)
        if not len(beyond) or not beyond[0]:
            found.append(math.nan)
            continue
        inner, outer = outwards[beyond[0] - 1 : beyond[0] + 1]
        share = (by_angle[inner] - level) / (by_angle[inner] - by_angle[outer])
        found.append(float(centres[inner] + share * (centres[outer] - centres[inner])))
    if not all(SMALLEST_RANGE <= abs(edge) <= LARGEST_RANGE for edge in found):
        raise UserError(
            f"the spectrum of {volume.source.path} shows no missing wedge; expected a tomogram as "
            f"it was reconstructed, or its largest tilt angle by {flag('tilt_range')}"
        )
    return tuple(found)
