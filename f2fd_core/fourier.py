"""Fourier-space building blocks: frequencies, shells, masks, and noise made from its spectrum.

Layout: real volumes (..., Z, Y, X); spectra on the ``rfftn`` grid (..., Z, Y, X // 2 + 1), zero
frequency at index 0. Frequencies are in cycles per voxel, 0.5 being Nyquist. Power is scaled so
that white noise of variance 1 has power 1 at every frequency.
"""

import functools
import math

import torch

AXES = (-3, -2, -1)
SYNTHESIS_MARGIN = 16
# What power is divided by at least.
TINY = 1e-30


def axis_frequencies(shape):
    """Three 1D tensors of signed frequencies (cycles per voxel) of the rfft grid's axes."""
    return (torch.fft.fftfreq(shape[0]), torch.fft.fftfreq(shape[1]), torch.fft.rfftfreq(shape[2]))


def radial_frequency(shape):
    """|k| (cycles per voxel) on the rfft grid of a volume of ``shape`` (Z, Y, X)."""
    z, y, x = axis_frequencies(shape)
    return torch.sqrt(z[:, None, None] ** 2 + y[None, :, None] ** 2 + x[None, None, :] ** 2)


def friedel_weights(shape):
    """How many coefficients of the full spectrum each column X of the rfft grid stands for."""
    weights = torch.full((shape[2] // 2 + 1,), 2.0)
    weights[0] = 1.0
    if shape[2] % 2 == 0:
        weights[-1] = 1.0
    return weights


class RfftGrid:
    """What belongs to every coefficient of the rfft grid of volumes of ``size`` (Z, Y, X).

    Attributes, tensors on the grid: ``radius`` |k|, ``from_axis`` the distance to the tilt axis Y,
    both in cycles per voxel; ``along_axis`` |k_y| / |k|; ``weights``, how many coefficients of the
    full spectrum each stands for; ``shell``, the index of its Fourier shell, one coefficient of the
    shortest side wide. Use :func:`grid_of`, which remembers the last ones.
    """

    def __init__(self, size):
        self.size = tuple(size)
        z, y, x = axis_frequencies(size)
        self.radius = radial_frequency(size)
        shape = self.radius.shape
        self.from_axis = torch.sqrt(z[:, None, None] ** 2 + x[None, None, :] ** 2).expand(shape)
        self.along_axis = y.abs()[None, :, None] / self.radius.clamp(min=1e-6)
        self.weights = friedel_weights(size).expand(shape)
        self.shell = (self.radius * min(size)).long()
        self.frequencies = (torch.arange(int(self.shell.max()) + 1) + 0.5) / min(size)

    def sums(self, values, index=None):
        """Sums over the coefficients of each ``index``, by default the shell: double precision."""
        index = self.shell if index is None else index
        total = torch.zeros(int(index.max()) + 1, dtype=torch.double)
        return total.index_add_(0, index.flatten(), (values * self.weights).flatten().double())

    def ratio(self, above, below, index=None):
        """The ratio of two sums, see :meth:`sums`; 0 where the second is."""
        above, below = self.sums(above, index), self.sums(below, index)
        return torch.where(below > 0, above / below.clamp(min=1e-30), torch.zeros_like(above))


@functools.lru_cache(maxsize=8)
def grid_of(size):
    """The :class:`RfftGrid` of volumes of ``size``, a tuple (Z, Y, X)."""
    return RfftGrid(size)


def sphere_radius(share):
    """Radius (cycles per voxel) of the sphere about zero frequency with this share of the spectrum.

    The spectrum of cubic voxels is the unit cube whatever the volume's shape, so the sphere is
    one in frequency, not in indices. Below a share of 0.52 it stays inside the cube.
    """
    return (3.0 * share / (4.0 * math.pi)) ** (1.0 / 3.0)


def self_conjugate_columns(shape):
    """The X indices of the rfft grid that store both members of a conjugate pair k, -k."""
    return (0, shape[2] // 2) if shape[2] % 2 == 0 else (0,)


def friedel_symmetric_plane(mask):
    """A mask (Z, Y) of a self-conjugate column, made the same at k and -k: the first of them in
    the order of indices counts."""
    depth, height = mask.shape
    z = torch.arange(depth, device=mask.device)[:, None]
    y = torch.arange(height, device=mask.device)[None, :]
    partner_z, partner_y = (-z) % depth, (-y) % height
    second = (z * height + y) > (partner_z * height + partner_y)
    return torch.where(second, mask[partner_z, partner_y], mask)


def block_mask(grid, side, keep_probability, generator=None, device="cpu"):
    """Boolean mask of shape ``grid`` in blocks of side³, each True with ``keep_probability``.

    The last block of an axis is cut where the axis is no multiple of the side.
    """
    blocks = [-(-length // side) for length in grid]
    mask = torch.rand(blocks, generator=generator, device=device) < keep_probability
    for axis, length in enumerate(grid):
        mask = mask.repeat_interleave(side, dim=axis).narrow(axis, 0, length)
    return mask


def resample_power(power, window, shape):
    """Power spectrum of a window of size ``window``, linearly interpolated to ``shape``'s grid."""
    for axis, frequency in enumerate(axis_frequencies(shape)):
        position = (frequency % 1.0) * window[axis]
        below = position.floor().long()
        above = below + 1
        weight = position - below
        last = power.shape[axis] - 1
        if axis == 2:
            below, above = below.clamp(max=last), above.clamp(max=last)
        else:
            below, above = below % window[axis], above % window[axis]
        weight = weight.reshape([-1 if other == axis else 1 for other in range(3)])
        power = (
            power.index_select(axis, below) * (1 - weight)
            + power.index_select(axis, above) * weight
        )
    return power


def _full_spectrum(power, size):
    """Power on the rfft grid of ``size``, at all frequencies."""
    z, y = (-torch.arange(side) % side for side in size[:2])
    rest = power[z][:, y][..., 1 : (size[2] + 1) // 2].flip(-1)  # at -k it is what it is at k
    return torch.cat([power, rest], -1)


def turned_power(power, size, axes):
    """The power spectrum (rfft grid) of a volume of ``size`` (Z, Y, X) with its ``axes`` in another
    order: (power, size)."""
    whole = _full_spectrum(power, size).permute(axes)
    size = tuple(size[axis] for axis in axes)
    return whole[..., : size[2] // 2 + 1], size


def rotated_power(power, size, degrees):
    """The power spectrum (rfft grid of ``size``) rotated about Z, so that the direction that was so
    many ``degrees`` from Y, towards X, is along Y; interpolated linearly."""
    _, y, x = axis_frequencies(size)
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle), math.sin(angle)
    places = [
        2 * (frequency * side + side // 2) / (side - 1) - 1
        for frequency, side in (
            (cosine * x[None, :] + sine * y[:, None], size[2]),
            (cosine * y[:, None] - sine * x[None, :], size[1]),
        )
    ]
    return torch.nn.functional.grid_sample(
        torch.fft.fftshift(_full_spectrum(power, size), dim=(1, 2))[None],
        torch.stack(places, -1)[None],
        padding_mode="border",
        align_corners=True,
    )[0]


def synthesis_shape(size):
    """Box in which noise for a region of ``size`` is made: larger, so that it doesn't wrap round.

    Multiples of 8 make fast transforms.
    """
    return tuple(-(-(side + SYNTHESIS_MARGIN) // 8) * 8 for side in size)


def synthesise(amplitude, box, size, count, generator=None):
    """Gaussian noise whose power spectrum is amplitude², shape (count,) + size, float32.

    ``amplitude`` is on the rfft grid of ``box``; the device is the amplitude's.
    """
    white = torch.randn((count,) + tuple(box), generator=generator, device=amplitude.device)
    noise = torch.fft.irfftn(torch.fft.rfftn(white, dim=AXES) * amplitude, s=box, dim=AXES)
    return noise[:, : size[0], : size[1], : size[2]]


def shell_index(shape, shells):
    """Index of each rfft-grid coefficient's Fourier shell; ``shells`` shells up to Nyquist.

    Coefficients beyond Nyquist (the cube's corners) get index ``shells``.
    """
    return (radial_frequency(shape) * 2 * shells).floor().long().clamp(max=shells)


def shell_means(values, shape, shells=None):
    """Mean of a real rfft-grid tensor over Fourier shells (friedel partners counted).

    Returns (frequencies of the shells' centres in cycles per voxel, means).
    """
    shells = shells or min(shape) // 2
    index = shell_index(shape, shells).flatten()
    weights = friedel_weights(shape).expand(values.shape).flatten()
    total = torch.zeros(shells + 1).index_add_(0, index, values.flatten() * weights)
    count = torch.zeros(shells + 1).index_add_(0, index, weights)
    frequency = (torch.arange(shells) + 0.5) / (2 * shells)
    return frequency, (total / count.clamp(min=1))[:shells]
