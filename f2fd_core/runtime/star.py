"""RELION's tomograms.star: which tomograms it names, and the same with a column of results.

Needs the package ``starfile``, the extra [star].
"""

import os
from typing import Dict, List, Optional, Tuple

from f2fd_core.config import UserError
from f2fd_core.runtime import lock
from f2fd_core.runtime.files import replaced

STAR_SUFFIX = ".star"
# RELION 5 (the pipeline's labels): what was reconstructed of all tilts and of either half, and
# what the denoising job of RELION adds.
TOMOGRAM_COLUMN = "rlnTomoReconstructedTomogram"
HALF_COLUMNS = ("rlnTomoReconstructedTomogramHalf1", "rlnTomoReconstructedTomogramHalf2")
RESULT = "rlnTomoReconstructedTomogramDenoised"
# The microscope, the tilt series of a tomogram, and the CTFs of its images (Å, degrees).
OPTICS = {
    "voltage": "rlnVoltage",
    "spherical_aberration": "rlnSphericalAberration",
    "amplitude_contrast": "rlnAmplitudeContrast",
}
SERIES = "rlnTomoTiltSeriesStarFile"
DEFOCI = ("rlnDefocusU", "rlnDefocusV")
PHASE_SHIFT = "rlnPhaseShift"


def _blocks(path):
    """All blocks of a STAR file, {name: table or dictionary}."""
    try:
        import starfile
    except ImportError:
        raise UserError(
            f"{path} is a STAR file; expected the package starfile to read it: pip install starfile"
        )
    try:
        return starfile.read(path, always_dict=True)
    except Exception as error:  # whatever the library stumbles over
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is not a readable STAR file ({first})")


def _read(path):
    """(all blocks, name of the one that has the tomograms)."""
    blocks = _blocks(path)
    for name, block in blocks.items():
        if hasattr(block, "columns") and (
            TOMOGRAM_COLUMN in block.columns or set(HALF_COLUMNS) <= set(block.columns)
        ):
            return blocks, name
    raise UserError(
        f"{path} has no column {TOMOGRAM_COLUMN}, nor {HALF_COLUMNS[0]}; expected RELION's "
        "tomograms.star of a reconstruction"
    )


def _placed(path, star):
    """A path in a STAR file, which is relative to the project's folder: the present one or one
    above the file."""
    folder = os.path.dirname(os.path.abspath(star))
    while not os.path.isabs(path) and not os.path.exists(path):
        beside = os.path.join(folder, path)
        if os.path.exists(beside):
            return beside
        if folder == os.path.dirname(folder):
            break
        folder = os.path.dirname(folder)
    return path


def has_tomograms(path: str) -> bool:
    """Whether a STAR file names tomograms of all tilts, not only half-maps."""
    blocks, name = _read(path)
    return TOMOGRAM_COLUMN in blocks[name].columns


def tomograms(path: str) -> List[str]:
    """The tomograms of a STAR file.

    Raises UserError where that can't be read, or has no tomograms.
    """
    blocks, name = _read(path)
    table = blocks[name]
    if TOMOGRAM_COLUMN not in table.columns:
        raise UserError(
            f"{path} has no column {TOMOGRAM_COLUMN}; expected one, or --half-maps auto for the "
            "half-maps that it has"
        )
    return [_placed(value, path) for value in table[TOMOGRAM_COLUMN]]


def half_maps(path: str) -> Optional[List[str]]:
    """The half-maps of a STAR file, odd and even of each tomogram in turn; None if it has none."""
    blocks, name = _read(path)
    table = blocks[name]
    if not set(HALF_COLUMNS) <= set(table.columns):
        return None
    return [
        _placed(value, path)
        for pair in zip(*(table[column] for column in HALF_COLUMNS))
        for value in pair
    ]


def ctfs(path: str) -> Dict[str, Dict[str, float]]:
    """{tomogram's path: {parameter of the CTF: value}} of a STAR file and its tilt series.

    Defocus (µm) and phase shift (degrees) are the medians over a tilt series' images, since the
    estimates of high tilts are often far off. Raises UserError where one can't be read.
    """
    blocks, name = _read(path)
    found = {}
    for row in blocks[name].to_dict("records"):
        tomogram = row[TOMOGRAM_COLUMN] if TOMOGRAM_COLUMN in row else row[HALF_COLUMNS[0]]
        values = {
            parameter: float(row[column]) for parameter, column in OPTICS.items() if column in row
        }
        if SERIES in row:
            values.update(_defocus_of(_placed(row[SERIES], path)))
        found[_placed(tomogram, path)] = values
    return found


def _defocus_of(path):
    """{"defocus", and maybe "phase_shift"} of a tilt series' STAR file."""
    for table in _blocks(path).values():
        if hasattr(table, "columns") and set(DEFOCI) <= set(table.columns):
            values = {"defocus": float(table[list(DEFOCI)].mean(axis=1).median()) / 1e4}
            if PHASE_SHIFT in table.columns:
                values["phase_shift"] = float(table[PHASE_SHIFT].median())
            return values
    raise UserError(f"{path} has no columns {' and '.join(DEFOCI)}; expected a tilt series' CTFs")


def write_results(path: str, results: Dict[str, str], target: str) -> Tuple[int, int]:
    """Write a STAR file again with the results in the column RESULT, and all else as it was.

    Each of several tasks does it, so that the last names all results, even if one has died.

    Parameters
    ----------
    path : str
        The STAR file.
    results : dict of str to str
        {tomogram, or first half-map where there is none: its denoised file}; only files that are
        there count.
    target : str
        Where the new file goes.

    Returns
    -------
    (int, int)
        Of how many tomograms of all there is a result; the others have an empty path, "None".
    """
    import starfile

    blocks, name = _read(path)
    table = blocks[name]
    column = TOMOGRAM_COLUMN if TOMOGRAM_COLUMN in table.columns else HALF_COLUMNS[0]
    places = [results.get(_placed(value, path), "") for value in table[column]]
    with lock.held(target, wait=True):
        table[RESULT] = [place if os.path.exists(place) else "None" for place in places]
        with replaced(target) as partial:
            starfile.write(blocks, partial, overwrite=True)
    return int((table[RESULT] != "None").sum()), len(places)
