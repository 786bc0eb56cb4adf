"""Which CTF a tomogram has: that of the settings, or its row in a file of CTFs."""

import csv
import dataclasses
from typing import Any, Dict

from f2fd_core.config import CTF, DeconvolveConfig, UserError
from f2fd_core.runtime import star
from f2fd_core.runtime.files import stem

NAME_COLUMN = "tomogram"


def ctf_of(path: str, settings: Any, own: Any = None) -> Dict[str, Any]:
    """The CTF of a tomogram, {parameter: value}.

    Parameters
    ----------
    path : str
        The tomogram's, by whose name it is found in a file of CTFs.
    settings : TrainConfig or DeconvolveConfig
        Has all values, and maybe the file.
    own : DenoiseConfig or CheckConfig, optional
        Of another tomogram than those of the training that has the ``settings``: its defocus or
        file replaces theirs. A half-map has the CTF of its tomogram.

    Raises
    ------
    UserError
        Where a file can't be read or has no row for the tomogram.
    """
    values = {name: getattr(settings, name) for name in CTF}
    place = settings.ctf
    if own is not None:
        place, values["defocus"] = own.ctf, own.defocus or settings.defocus
        path = own.whole_of(path)
    if place:
        table, name = read_table(place), stem(path)
        rows = [table[path]] if path in table else _named(table, name)
        if len(rows) != 1:
            raise UserError(
                f"{place} has {len(rows) or 'no'} rows for {name}; expected one for every "
                "tomogram, by its path or its file's name"
            )
        values.update(rows[0])
        if not values["defocus"]:
            raise UserError(f"{place} has no defocus of {name}; expected one in µm")
    return values


def _named(table, name):
    """The rows of the files of this name."""
    return [values for path, values in table.items() if stem(path) == name]


def read_table(path: str) -> Dict[str, Dict[str, float]]:
    """{tomogram's path or name: {parameter: value}} of a CSV file or RELION's tomograms.star.

    Raises UserError for what is no such file, and for values that the options would not take.
    """
    rows = star.ctfs(path) if path.lower().endswith(star.STAR_SUFFIX) else _rows(path)
    for name, values in rows.items():
        try:
            dataclasses.replace(DeconvolveConfig(), **values)
        except UserError as error:
            raise UserError(f"{path}, {name}: {error}")
    return rows


def _rows(path):
    try:
        with open(path, encoding="utf-8-sig", newline="") as stream:
            lines = list(csv.DictReader(stream, skipinitialspace=True))
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or "it is no CSV file"
        raise UserError(f"cannot read the CTFs {path}: {reason}")
    columns = list(lines[0]) if lines else []
    unknown = [str(column) for column in columns if column not in (NAME_COLUMN, *CTF)]
    if NAME_COLUMN not in columns or len(columns) < 2 or unknown:
        found = f"the column {unknown[0]}" if unknown else f"the columns {', '.join(columns)}"
        raise UserError(
            f"{path} has {found if columns else 'no rows'}; expected the column {NAME_COLUMN} and "
            f"some of {', '.join(CTF)}"
        )
    rows: Dict[str, Dict[str, float]] = {}
    for number, line in enumerate(lines, 2):
        name = (line.pop(NAME_COLUMN) or "").strip()
        if name in rows:
            raise UserError(f"{path} has 2 rows for {name}; expected one")
        try:
            rows[name] = {column: float(value) for column, value in line.items() if value}
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}; expected numbers")
    return rows
