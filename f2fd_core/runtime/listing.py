"""The files that a user means: tomograms from folders, patterns, lists and STAR files, and the
half-maps that lie beside them under the names that other programs give.
"""

import glob
import os
import re
from typing import Dict, List, NamedTuple, Sequence

from f2fd_core.config import UserError
from f2fd_core.config.shared import AUTOMATIC
from f2fd_core.runtime import star
from f2fd_core.runtime.files import (
    DECONVOLVED,
    DENOISED_ENDING,
    DEVIATION,
    ENDINGS,
    FILLED,
    in_format,
    is_zarr,
)

LIST = ".txt"
# What marks one half in a file's name or in that of its folder; the other halves of a pair have
# the mark at the same place.
HALF_MARKS = {"odd": ("odd", "half1"), "even": ("even", "evn", "half2")}
PARTS = re.compile(r"[^0-9a-zA-Z]+")
CONVENTIONS = (
    "expected names such as X_ODD and X_EVN, X_half1 and X_half2, or odd/X and even/X beside X"
)


def tomograms(words: Sequence[str]) -> List[str]:
    """The tomograms that the ``words`` name.

    Parameters
    ----------
    words : sequence of str
        Files; folders, of which all tomograms count that are neither half-maps nor results of
        F2Fd; patterns with ``*``, ``?`` or ``[]``; lists (.txt) with a word a line, relative to the
        list's folder or to the present one, and comments after ``#``; RELION's tomograms.star.

    Returns
    -------
    list of str
        Paths in the order of the words, each once.

    Raises
    ------
    UserError
        Where a word names nothing.
    """
    found: Dict[str, None] = {}
    for word in words:
        found.update(dict.fromkeys(_named_by(word)))
    return list(found)


def _named_by(word):
    if is_zarr(word) and os.path.isdir(word):
        return [word.rstrip(os.sep)]
    if os.path.isdir(word):
        return _in_folder(word)
    if word.lower().endswith(LIST):
        return _in_list(word)
    if word.lower().endswith(star.STAR_SUFFIX):
        return star.tomograms(word)
    if os.path.lexists(word) or not glob.has_magic(word):
        return [word]
    paths = [
        path
        for path in sorted(glob.glob(word, recursive=True))
        if not path.endswith((LIST, star.STAR_SUFFIX))
    ]
    if not paths and not {"*", "?"} & set(word):
        return [word]  # brackets may stand in a name
    if not paths:
        raise UserError(f"no file matches {word}; expected tomograms")
    return paths


def _in_folder(folder):
    """The tomograms of a folder that are neither half-maps nor results of F2Fd."""
    paths = [
        os.path.join(folder, name)
        for name in sorted(os.listdir(folder))
        if name.lower().endswith(ENDINGS)
        and not name.startswith(".")
        and not name.endswith(
            tuple(
                in_format(ending, name)
                for ending in (DENOISED_ENDING, DEVIATION, DECONVOLVED, FILLED)
            )
        )
        and not mark_of(name)
    ]
    if not paths:
        raise UserError(
            f"{folder} holds no tomogram; expected files ending with {', '.join(ENDINGS)} that are "
            "no half-maps"
        )
    return paths


def _in_list(path):
    """The tomograms that a list names, a word a line."""
    try:
        with open(path, encoding="utf-8-sig") as stream:
            lines = [line.split("#")[0].strip() for line in stream.read().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text"
        raise UserError(f"cannot read the list {path}: {reason}")
    found: List[str] = []
    for number, line in enumerate(lines, 1):
        if not line:
            continue
        beside = os.path.join(os.path.dirname(path), line)
        word = beside if os.path.exists(beside) or glob.glob(beside) else line
        if not (os.path.exists(word) or glob.glob(word)):
            raise UserError(
                f"{path} names {line} in line {number}, which does not exist; expected a path "
                "relative to the list's folder or to the present one"
            )
        if os.path.abspath(word) == os.path.abspath(path):
            raise UserError(f"{path} names itself in line {number}; expected tomograms")
        found += _named_by(word)
    if not found:
        raise UserError(f"{path} names no tomogram; expected a path a line")
    return found


def _parts(name):
    """The parts of a file's name without its ending, in lower case, and the numbers 1 and 2 of
    ``half`` with it."""
    base, ending = os.path.splitext(name)
    parts = PARTS.split((base if ending.lower() in ENDINGS else name).lower())
    joined: List[str] = []
    for part in parts:
        if joined and joined[-1] == "half" and part in ("1", "2"):
            joined[-1] += part
        elif part:
            joined.append(part)
    return joined


def mark_of(name: str) -> str:
    """Which half a file is by its name alone: "odd", "even", or "" if it is none."""
    parts = _parts(os.path.basename(name))
    found = [half for half, marks in HALF_MARKS.items() if any(mark in parts for mark in marks)]
    return found[0] if len(found) == 1 else ""


def _half(path):
    """(which half a file is, what it is a half of) by its name, else by its folder's; ("", "") if
    it is none."""
    folder, name = os.path.split(path)
    for words in (name, os.path.basename(folder)):
        half = mark_of(words)
        if half:
            marks = HALF_MARKS["odd"] + HALF_MARKS["even"]
            return half, "_".join(part for part in _parts(name) if part not in marks)
    return "", ""


def half_maps(paths: Sequence[str]) -> List[str]:
    """The half-maps of tomograms, found by the names that other programs give.

    These are AreTomo's (X_Vol, X_ODD_Vol, X_EVN_Vol), WarpTools' (X, odd/X, even/X), RELION's (X,
    X_half1, X_half2), IMOD's and tomotools' (X, X_ODD, X_EVN) and cryoCARE's (odd and even in the
    name or the folder).

    Parameters
    ----------
    paths : sequence of str
        The tomograms.

    Returns
    -------
    list of str
        Two paths a tomogram, odd and even.

    Raises
    ------
    UserError
        Where a tomogram has not exactly one half-map of either kind.
    """
    found: List[str] = []
    for path in paths:
        halves = _halves_beside(path)
        for half, candidates in halves.items():
            if len(candidates) != 1:
                names = " and ".join(candidates) or "no file"
                raise UserError(
                    f"--half-maps auto: {names} could be the {half} half-map of {path}; "
                    + (CONVENTIONS if not candidates else "expected one: name them all")
                )
        found += [halves["odd"][0], halves["even"][0]]
    return found


def _halves_beside(path) -> Dict[str, List[str]]:
    folder, name = os.path.split(path)
    wanted = "_".join(_parts(name))
    marks = HALF_MARKS["odd"] + HALF_MARKS["even"]
    folders = [folder]
    for parent in (folder, os.path.dirname(folder)):
        folders += [
            os.path.join(parent, other)
            for other in sorted(os.listdir(parent or "."))
            if other.lower() in marks and os.path.isdir(os.path.join(parent, other))
        ]
    found: Dict[str, List[str]] = {half: [] for half in HALF_MARKS}
    for place in dict.fromkeys(folders):
        for other in sorted(os.listdir(place or ".")):
            candidate = os.path.join(place, other)
            half, whole = _half(candidate)
            if half and whole == wanted and other.lower().endswith(ENDINGS):
                found[half].append(candidate)
    return found


class Found(NamedTuple):
    """What the words for tomograms name: paths, half-maps (odd and even of each tomogram in turn),
    sentences on what was paired, and the STAR files among the words."""

    tomograms: List[str]
    half_maps: List[str]
    said: List[str]
    stars: List[str]


def found_for(words: Sequence[str], halves_given: Sequence[str]) -> Found:
    """The files that the words for tomograms and half-maps of a command name.

    Parameters
    ----------
    words : sequence of str
        As for :func:`tomograms`.
    halves_given : sequence of str
        Half-maps, or the word "auto" alone.

    Returns
    -------
    Found
        Without tomograms, if a STAR file has half-maps only.

    Raises
    ------
    UserError
        Where a word names nothing, and for half-maps that can't be found for certain.
    """
    stars = [word for word in words if word.lower().endswith(star.STAR_SUFFIX)]
    if tuple(halves_given) != AUTOMATIC:
        return Found(tomograms(words), list(halves_given), [], stars)
    if not words:
        raise UserError("--half-maps is auto without tomograms; expected these, too")
    paths: List[str] = []
    halves: List[str] = []
    for word in words:
        named, known = [], None
        if word in stars:
            known = star.half_maps(word)
        if known is None or star.has_tomograms(word):
            named = _named_by(word)
        paths += named
        halves += half_maps(named) if known is None else known
    if paths and len(halves) != 2 * len(paths):
        raise UserError(
            f"{' and '.join(stars)} have half-maps without their tomograms, and the other words "
            "have tomograms; expected separate runs"
        )
    names = paths or halves[::2]
    said = [
        f"half-maps of {name}: {odd} and {even}"
        for name, odd, even in zip(names, halves[::2], halves[1::2])
    ]
    return Found(paths, halves, said, stars)
