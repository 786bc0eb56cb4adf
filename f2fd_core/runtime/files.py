"""Files that are whole or not there, and the folders that they are written to."""

import contextlib
import glob
import hashlib
import os
import pathlib
import re
import shutil
import stat

from f2fd_core.config import UserError

PARTIAL = ".part"
MRC = ".mrc"
ZARR = ".zarr"  # a folder, an OME-Zarr image
ENDINGS = (".mrc", ".mrcs", ".map", ".rec", ".st", ".ali", ZARR)
# What is added to a tomogram's name: of results, and of what lies beside them.
DENOISED_ENDING = "_denoised.mrc"
DEVIATION = "_std.mrc"
DECONVOLVED = "_deconvolved.mrc"
FILLED = "_filled.mrc"
PICTURE = "_slices.png"
VERDICT = "_check.json"
NAME = "{name}"
"""What stands for the tomogram's name in the pattern of a result's."""
READ_AT_ONCE = 1 << 20
# Where a copick project has its tomograms: ExperimentRuns/<run>/VoxelSpacing<Å>/<type>.zarr
RUN = re.compile(r"/ExperimentRuns/([^/]+)/VoxelSpacing[\d.]+/[^/]+\.zarr$")


def cannot_write(path, error):
    """The system's refusal (an OSError or another) as an OSError that is one sentence."""
    reason = getattr(error, "strerror", None) or str(error).splitlines()[0]
    return OSError(f"cannot write {path}: {reason}")


def _settle(path):
    """Wait until the content of a file or folder is on the disk, so that no loss of power can part
    it from the name that it gets next."""
    for name in files_in(path):
        with open(name, "rb") as stream:
            os.fsync(stream.fileno())


def files_in(path):
    """A file, or all files in a folder, in the order of their names."""
    if not os.path.isdir(path):
        return [path]
    return sorted(
        os.path.join(folder, name) for folder, _, names in os.walk(path) for name in names
    )


def remove(path):
    """Remove a file, a link or a folder with all that it holds. Raises OSError."""
    if os.path.isdir(path) and not os.path.islink(path):
        shutil.rmtree(path)
    else:
        os.remove(path)


@contextlib.contextmanager
def removed_after(path):
    """Remove a temporary file or folder at the end, if it is still there."""
    try:
        yield
    finally:
        # Where it can't be removed, in a folder that became read-only, the name says what it is.
        with contextlib.suppress(OSError):
            remove(path)


def create(partial):
    """Create an empty temporary file, also in the place of one that a killed run left.

    What lies there is removed and never opened: it may be a link to another file.
    """
    with contextlib.suppress(FileNotFoundError):
        remove(partial)
    open(partial, "xb").close()


def create_folder(partial):
    """The same for a temporary folder."""
    with contextlib.suppress(FileNotFoundError):
        remove(partial)
    os.mkdir(partial)


def refuse_links(path, flags):
    """Open a file that stays, such as a lock, but no link: an ``opener`` for :func:`open`.

    Raises UserError if ``path`` is a symbolic link, or one of a file's several names.
    """
    with contextlib.suppress(FileNotFoundError):
        found = os.lstat(path)
        if stat.S_ISLNK(found.st_mode) or found.st_nlink > 1:
            raise UserError(
                f"{path} is a link to another file, which would be overwritten; "
                "expected no link there"
            )
    return os.open(path, flags | os.O_NOFOLLOW, 0o666)


@contextlib.contextmanager
def _set_aside(path):
    """Make room for a folder, which the system lets replace no other: what is there is moved first,
    and then removed, so that no half of it is ever found under its name."""
    aside = path + ".old" + PARTIAL
    with removed_after(aside):
        with contextlib.suppress(FileNotFoundError):
            remove(aside)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, aside)
        yield


def finish(partial, path):
    """Give a complete temporary file or folder its name. Raises OSError, one sentence."""
    try:
        _settle(partial)
        if os.path.isdir(partial):
            with _set_aside(path):
                os.replace(partial, path)
        else:
            os.replace(partial, path)
    except OSError as error:
        raise cannot_write(path, error)


@contextlib.contextmanager
def replaced(path):
    """Yield a temporary name, to be written within the context; it becomes ``path`` at the end.

    On an error it is removed and ``path`` left as it was. Raises OSError, one sentence, where the
    system refuses.
    """
    partial = path + PARTIAL
    with removed_after(partial):
        try:
            create(partial)
            yield partial
        except OSError as error:
            raise cannot_write(path, error)
        finish(partial, path)


def sweep(pattern):
    """Remove the temporary files that a killed run left of files with such paths."""
    for partial in glob.glob(pattern + PARTIAL):
        os.remove(partial)


def make_folder(path):
    """Create an output folder if it isn't there; raises UserError if that can't be done."""
    try:
        os.makedirs(path, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot create the output folder {path}: {error.strerror}")
    if not os.access(path, os.W_OK | os.X_OK):
        raise UserError(f"the output folder {path} is not writable")


def stem(path):
    """The name of a tomogram's file without its ending; the last part of TS_1_13.5Apx is none. In a
    copick project, where all are called after their type, the run's name comes before it."""
    name, ending = os.path.splitext(os.path.basename(path.rstrip(os.sep)))
    name = name if ending.lower() in ENDINGS else name + ending
    run = RUN.search(os.path.abspath(path))
    return f"{run[1]}_{name}" if run else name


def is_zarr(path):
    """Whether a file is an OME-Zarr image, by its name."""
    return path.rstrip(os.sep).lower().endswith(ZARR)


def in_format(ending, path):
    """The ``ending`` of a volume in the format of the tomogram ``path``."""
    return ending.replace(MRC, ZARR) if is_zarr(path) else ending


def results_among(tomograms, pattern=NAME + DENOISED_ENDING):
    """Those of the tomograms that are, by their names, results of others of them, as ``*.mrc`` in
    a folder with results gives them. ``pattern``: as for :func:`output_paths`."""
    own = {NAME + ending for ending in (DENOISED_ENDING, DEVIATION, DECONVOLVED, FILLED)}
    patterns = {pattern, *own} - {NAME + ".mrc"}
    made = {
        in_format(each, path).replace(NAME, stem(path)) for path in tomograms for each in patterns
    }
    return [path for path in tomograms if os.path.basename(path) in made]


def _refuse_long(path):
    """Raise UserError if the system can't have a file of such a name, or the path is too long."""
    there = os.path.dirname(os.path.abspath(path))
    while not os.path.isdir(there):
        there = os.path.dirname(there)
    for text, limit in ((os.path.basename(path), "PC_NAME_MAX"), (path, "PC_PATH_MAX")):
        found, most = len(os.fsencode(text)), os.pathconf(there, limit)
        if found > most:
            raise UserError(
                f"{text} would be too long for a file's name, with {found} bytes; "
                f"expected at most {most}"
            )


def output_paths(tomograms, folder, pattern):
    """{tomogram: path of its result}, whose name is the ``pattern`` with the tomogram's for NAME.

    Raises UserError where two results or what goes with them would be the same, or where the
    longest name that goes with one is too long.
    """
    paths, pictures = {}, set()
    for tomogram in tomograms:
        name = stem(tomogram)
        path = os.path.join(folder, in_format(pattern, tomogram).replace(NAME, name))
        _refuse_long(os.path.splitext(path)[0] + PICTURE + PARTIAL)
        picture = companion(path, PICTURE)
        if picture in pictures:
            raise UserError(
                f"two tomograms are called {name}, whose results would both be "
                f"{path}; expected different file names or separate runs"
            )
        paths[tomogram] = path
        pictures.add(picture)
    return paths


def fingerprint(*paths, text=""):
    """Twelve hexadecimal digits by which a text and the content of files are known again."""
    found = hashlib.blake2b(text.encode(), digest_size=6)
    for path in paths:
        for name in files_in(path):
            if name != path:  # in a folder, what is where
                found.update(os.path.relpath(name, path).encode("utf-8", "surrogateescape"))
            with open(name, "rb") as stream:
                for block in iter(lambda: stream.read(READ_AT_ONCE), b""):
                    found.update(block)
    return found.hexdigest()


def refuse_inputs(results, inputs):
    """Raise UserError if one of the results, files or folders, is one of the inputs or holds one,
    which would be lost; links are followed."""
    held = {}
    for path in inputs:
        place = pathlib.Path(os.path.realpath(path))
        held.update(dict.fromkeys((place, *place.parents), path))
    for result in results:
        lost = held.get(pathlib.Path(os.path.realpath(result)))
        if lost:
            raise UserError(
                f"the input {lost} would be replaced by the result {result}; expected "
                "another output folder"
            )


def refuse_existing(paths, overwrite, hint="--overwrite to replace it"):
    """Raise UserError if one of the paths is there and may not be replaced."""
    existing = [path for path in paths if os.path.exists(path)]
    if existing and not overwrite:
        raise UserError(f"{existing[0]} exists already; it is kept: give {hint}")


def companion(path, ending):
    """The file that goes with a denoised tomogram, such as <name>_std.mrc with
    <name>_denoised.mrc."""
    own = in_format(DENOISED_ENDING, path)
    whole = path[: -len(own)] if path.endswith(own) else os.path.splitext(path)[0]
    return whole + in_format(ending, path)


def volumes_of(path, std, filled=False):
    """The denoised tomogram and, if they are wanted, its standard deviation and the same with its
    missing wedge filled."""
    wanted = ((DEVIATION, std), (FILLED, filled))
    return [path, *(companion(path, ending) for ending, yes in wanted if yes)]
