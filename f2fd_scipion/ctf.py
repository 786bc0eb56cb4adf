"""What the deconvolution filter takes from Scipion: the microscope, and the CTFs by tsId."""

import csv
import io
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


def optics(acquisition):
    """The engine's values of the microscope, {field: value}, as far as an acquisition (or None)
    has them."""
    if acquisition is None:
        return {}
    values = {
        "voltage": acquisition.getVoltage(),
        "spherical_aberration": acquisition.getSphericalAberration(),
        "amplitude_contrast": acquisition.getAmplitudeContrast(),
    }
    return {field: value for field, value in values.items() if value}


def as_table(rows):
    """The engine's CSV file of CTFs, as a text; ``rows``: {file: {field: value}}."""
    fields = list(dict.fromkeys(field for values in rows.values() for field in values))
    text = io.StringIO()
    writer = csv.DictWriter(text, ["tomogram", *fields], lineterminator="\n")
    writer.writeheader()
    for path, values in rows.items():
        writer.writerow(dict(values, tomogram=path))
    return text.getvalue()
