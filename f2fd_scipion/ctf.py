"""What the deconvolution filter takes from Scipion's CTFs: defocus and phase shift, by tsId."""

import statistics

from f2fd_core.config import UserError

ANGSTROM_PER_UM = 1e4


def _estimates(series):
    """(Defocus in Å, phase shift in degrees) of the images of a tilt series that have been kept
    and whose CTF was found: the rest has a defocus of 0 or below."""
    return [
        ((ctf.getDefocusU() + ctf.getDefocusV()) / 2, ctf.getPhaseShift() or 0.0)
        for ctf in series
        if ctf.isEnabled() and min(ctf.getDefocusU(), ctf.getDefocusV()) > 0
    ]


def without_ctf(ctfs, tsIds):
    """Those of the ``tsIds`` for which the set of CTFs has no defocus, sorted."""
    return sorted(set(tsIds) - {series.getTsId() for series in ctfs if _estimates(series)})


def filter_values(ctfs, tsId):
    """The engine's {"defocus": µm, "phase_shift": degrees} for a tomogram.

    They are the medians over its images, since those of high tilts are often far off. Raises
    UserError if there is none.
    """
    found = [
        estimate for series in ctfs if series.getTsId() == tsId for estimate in _estimates(series)
    ]
    if not found:
        raise UserError(f"CTFs: there is no defocus for {tsId}")
    defoci, phase_shifts = zip(*found)
    return {
        "defocus": statistics.median(defoci) / ANGSTROM_PER_UM,
        "phase_shift": statistics.median(phase_shifts),
    }
