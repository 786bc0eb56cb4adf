"""copick projects: which tomograms they have, and results that go into them as a type of their own.

Projects on local file systems are taken, where tomograms are folders. Needs the package ``copick``,
the extra [copick].
"""

import os
import shutil
from typing import Any, Callable, Dict, List, Optional, Sequence

from f2fd_core.config import ProjectConfig, UserError, flag
from f2fd_core.runtime import files, lock

# What denoised tomograms of a type are called; copick allows no underscores.
SUFFIX = "-f2fd"
# The folder in the project's overlay for what is no tomogram, if no other is named.
FOLDER = "f2fd"
# Voxel spacings are the same up to this relative difference.
SAME_SPACING = 0.01


def taken(explicit: Dict[str, Any]) -> "Optional[Project]":
    """The project that the options ``explicit``, {name: value}, name, or None; its tomograms take
    the place of the names of its runs among them."""
    given = ProjectConfig(
        **{name: explicit.pop(name) for name in ("copick", "tomo_type") if name in explicit}
    )
    if not given.copick and not given.tomo_type:
        return None
    for name, value in given.to_dict().items():
        if not value:
            raise UserError(
                f"{flag(name)} is missing; expected it, since --copick and --tomo-type go together"
            )
    if explicit.get("watch"):
        raise UserError("--copick and --watch exclude each other; expected one of them")
    project = Project(
        given.copick,
        given.tomo_type,
        explicit.get("tomograms", ()),
        explicit.get("voxel_size", 0.0),
    )
    explicit["tomograms"] = list(project.places)
    return project


def _opened(path):
    """The root of a project; raises UserError if that can't be read."""
    try:
        import copick
    except ImportError:
        raise UserError(
            f"--copick is {path}; expected the package copick to read it: pip install copick zarr"
        )
    try:
        return copick.from_file(path)
    except Exception as error:  # whatever the library stumbles over
        first = (str(error).splitlines() or [type(error).__name__])[0]
        raise UserError(f"{path} is no configuration of a copick project ({first})")


def _local(place, filesystem, what):
    """The ``place`` of something on a ``filesystem``; raises UserError if that is not local."""
    protocol = getattr(filesystem, "protocol", ())
    if "file" not in ((protocol,) if isinstance(protocol, str) else protocol):
        raise UserError(f"{what} is not on a local file system; expected a local copy of it")
    return place


class Project:
    """The tomograms of a type in a copick project, with the places of their results.

    Parameters
    ----------
    path : str
        The project's configuration.
    kind : str
        The tomograms' type, such as wbp.
    runs : sequence of str
        Names of runs; none: all that have such a tomogram.
    spacing : float
        Voxel spacing in Å; 0: the only one that there is.

    Attributes
    ----------
    places : dict of str to str
        {path of a tomogram: path of its result in the project}.
    folder : str
        For what is no tomogram.

    Raises
    ------
    UserError
        If there is no such tomogram, or more than one in a run, and for projects elsewhere than on
        a local file system.
    """

    def __init__(self, path: str, kind: str, runs: Sequence[str] = (), spacing: float = 0.0):
        self.path, self.kind = path, kind
        self.places: Dict[str, str] = {}
        root = _opened(path)
        there = {run.name: run for run in root.runs}
        for name in runs or sorted(there):
            if name not in there:
                raise UserError(f"{name} is no run of {path}; expected one of {_listed(there)}")
            found = self._tomograms_of(there[name], spacing)
            if runs and not found:
                raise UserError(
                    f"{name} of {path} has no tomogram of the type {kind}; expected one in each run"
                )
            self._place(found)
        if not self.places:
            types = {
                tomogram.tomo_type
                for run in root.runs
                for voxel_spacing in run.voxel_spacings
                for tomogram in voxel_spacing.tomograms
            }
            raise UserError(
                f"{path} has no tomogram of the type {kind}"
                + (f" with voxels of {spacing:g} Å" if spacing else "")
                + f"; its types are {_listed(types)}"
            )
        self.folder = os.path.join(str(root.root_overlay), FOLDER)

    def _tomograms_of(self, run, spacing):
        """The tomogram of a run in a list, or none; raises UserError for more than one."""
        found = {
            voxel_spacing.voxel_size: tomogram
            for voxel_spacing in run.voxel_spacings
            for tomogram in voxel_spacing.tomograms
            if tomogram.tomo_type == self.kind
            and (not spacing or abs(voxel_spacing.voxel_size - spacing) <= SAME_SPACING * spacing)
        }
        if len(found) > 1:
            raise UserError(
                f"{run.name} of {self.path} has tomograms of the type {self.kind} with voxels of "
                f"{' and '.join(f'{size:g}' for size in sorted(found))} Å; expected one of them: "
                "choose with --voxel-size"
            )
        return list(found.values())

    def _place(self, tomograms):
        """Take some tomograms, with the places of their results in the project."""
        for tomogram in tomograms:
            static, spacing = tomogram.read_only, tomogram.voxel_spacing
            source = _local(
                getattr(tomogram, "static_path" if static else "overlay_path", ""),
                getattr(tomogram, "fs_static" if static else "fs_overlay", None),
                f"a tomogram of the type {self.kind} in {self.path}",
            )
            overlay = _local(
                spacing.overlay_path, spacing.fs_overlay, f"the overlay of {self.path}"
            )
            self.places[source] = os.path.join(overlay, self.kind + SUFFIX + files.ZARR)

    def with_results(self, run: Callable[[Any], None], folder: str) -> Callable[[Any], None]:
        """The same as ``run``, a function of a configuration, after which the results, made in this
        ``folder`` of its output, are in the project, and links to them in their place."""

        def both(settings):
            names = [name for name in settings.names() if name in self.places]
            made = files.output_paths(
                names, os.path.join(settings.output, folder), settings.result_file
            )
            for name, path in made.items():
                place = self.places[name]
                known = settings.resume and os.path.realpath(path) == os.path.realpath(place)
                if os.path.lexists(place) and not (settings.overwrite or known):
                    raise UserError(
                        f"the project has a tomogram of the type {self.kind}{SUFFIX} already, "
                        f"{place}; it is kept: give --overwrite to replace it"
                    )
            run(settings)
            from f2fd_core.runtime import distributed

            group, _ = distributed.from_environment(os.environ)
            for _, name in group.shard(names):
                if os.path.isdir(made[name]) and not os.path.islink(made[name]):
                    _move(made[name], self.places[name])

        return both


def _move(path, place):
    """Move a result into the project, and leave a link."""
    files.make_folder(os.path.dirname(place))
    partial = place + files.PARTIAL
    with lock.held(place), files.removed_after(partial):
        if os.path.lexists(partial):
            files.remove(partial)
        try:
            shutil.move(path, partial)
        except OSError as error:
            raise files.cannot_write(place, error)
        files.finish(partial, place)
        os.symlink(os.path.abspath(place), path)


def _listed(names) -> str:
    listed: List[str] = sorted(names)
    return ", ".join(listed[:10]) + (" ..." if len(listed) > 10 else "") if listed else "none"
