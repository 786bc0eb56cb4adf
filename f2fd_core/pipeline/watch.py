"""``f2fd run --watch``: tomograms are denoised as they come, while a session goes on."""

import dataclasses
import os
import time
from typing import Dict, List, NamedTuple, Tuple

from f2fd_core.config import RunConfig, UserError
from f2fd_core.data import formats
from f2fd_core.data.source import file_stamp, refuse_bad_voxels
from f2fd_core.filters.ctf_table import ctf_of, read_table
from f2fd_core.pipeline import steps
from f2fd_core.runtime import console, distributed, files, listing, lock
from f2fd_core.runtime.run_folder import stop_file, withdraw_stop

# Seconds between two looks.
POLL = 5.0
# Seconds for which a file has to stay as it is to be taken for whole.
SETTLED = 10.0


class Arrival(NamedTuple):
    """A tomogram with its half-maps, if these are wanted, and the state of its files, that with
    the CTFs included."""

    path: str
    half_maps: Tuple[str, ...]
    stamp: Tuple[Tuple[int, ...], ...]


def watch(config: RunConfig) -> str:
    """Denoise the tomograms that are there and those that come.

    The model is trained on the first that are whole. Files that are still being written are left
    alone until they are. A tomogram that can't be denoised is reported and left out. It ends when
    the file ``stop`` is made in the output folder, or when nothing has come for ``idle`` minutes.

    Parameters
    ----------
    config : RunConfig
        Its ``tomograms`` are words such as folders and patterns, which are looked up again and
        again.

    Returns
    -------
    str
        The path of overview.html.

    Raises
    ------
    UserError
        For bad options, and where the training can't begin.
    """
    group, _ = distributed.from_environment(os.environ)
    if group.size > 1:
        raise UserError(
            f"f2fd run --watch is one of {group.size} tasks; expected one, with --device all for "
            "several GPUs"
        )
    config = dataclasses.replace(
        config, output=os.path.abspath(config.output), resume=not config.overwrite
    )
    if config.ctf:
        read_table(config.ctf)  # what it lacks may come with the tomograms, but not a file
    files.make_folder(config.output)
    withdraw_stop(config.output)
    console.say(
        f"watching {' '.join(config.tomograms)}; to end it: touch {stop_file(config.output)}"
    )
    with lock.held(stop_file(config.output)):
        return _Watch(config).until_the_end()


class _Watch:
    """What has been seen, made and found to be bad."""

    def __init__(self, config):
        self.config = config
        self.seen: Dict[str, Tuple[Tuple[Tuple[int, ...], ...], float]] = {}
        self.done: Dict[str, Arrival] = {}
        self.bad: Dict[str, Tuple[Tuple[int, ...], ...]] = {}
        self.chosen: Dict[str, str] = {}
        self.model = ""

    def until_the_end(self):
        last = time.monotonic()
        while True:
            new = self._whole()
            if new:
                self._make(new)
                last = time.monotonic()
            idle = time.monotonic() - last
            if os.path.exists(stop_file(self.config.output)):
                withdraw_stop(self.config.output)
                console.say("the file stop is there")
                break
            if self.config.idle and idle > self.config.idle * 60:
                console.say(f"nothing has come for {self.config.idle:g} min")
                break
            time.sleep(POLL)
        if not self.done:
            raise UserError(
                f"{' '.join(self.config.tomograms)} had no whole tomogram; expected some to come"
            )
        return steps.page_of(self.config)

    def _whole(self) -> List[Arrival]:
        """What has come, is whole and is not yet dealt with."""
        now, found = time.monotonic(), []
        for arrival in arrivals(self.config):
            stamp, since = self.seen.get(arrival.path, (None, now))
            if stamp != arrival.stamp:
                since = now
            self.seen[arrival.path] = arrival.stamp, since
            known = arrival.path in self.done or self.bad.get(arrival.path) == arrival.stamp
            if not known and now - since >= SETTLED and self._readable(arrival):
                found.append(arrival)
        return found

    def _readable(self, arrival):
        try:
            for path in (arrival.path, *arrival.half_maps):
                refuse_bad_voxels(formats.open_volume(path, self.config.voxel_size))
            ctf_of(arrival.path, self.config)
        except UserError as error:
            self._leave_out(arrival, error)
            return False
        return True

    def _leave_out(self, arrival, error):
        console.warn(f"{error}; {arrival.path} is left out until the file changes")
        self.bad[arrival.path] = arrival.stamp

    def _make(self, new):
        """Denoise what has come, with the model that is trained first if there is none."""
        self.done.update({arrival.path: arrival for arrival in new})
        everything = _of(self.config, self.done.values())
        if not self.model:
            if set(self.config.train_on) - set(everything.tomograms):
                return  # they are still to come
            self.chosen = steps.begin(everything)
            self.model = steps.train_on(everything, self.chosen)
            new = list(self.done.values())
        for one in new:
            try:
                steps.denoise_all(_of(self.config, [one]), self.model)
            except UserError as error:
                self._leave_out(one, error)
                del self.done[one.path]
        steps.show(_of(self.config, self.done.values()), self.chosen, self.model)


def arrivals(config) -> List[Arrival]:
    """The tomograms that the words of a RunConfig name now and whose half-maps, if they are wanted,
    are there."""
    found = []
    for path in _named(config):
        try:
            halves = tuple(listing.half_maps([path])) if config.half_maps else ()
            stamp = tuple(
                file_stamp(name)
                for whole in (path, *halves, *filter(None, [config.ctf]))
                for name in files.files_in(whole)
            )
        except (UserError, OSError):  # no half-maps yet, or gone again
            continue
        found.append(Arrival(path, halves, stamp))
    left_out = files.results_among([arrival.path for arrival in found], config.result_file)
    return [arrival for arrival in found if arrival.path not in left_out]


def _named(config):
    paths = []
    for word in config.tomograms:
        try:
            paths += listing.tomograms([word])
        except UserError:  # a folder or pattern without tomograms: not yet
            continue
    return [path for path in dict.fromkeys(paths) if not listing.mark_of(path)]


def _of(config, some):
    """The configuration for some arrivals."""
    return dataclasses.replace(
        config,
        watch=False,
        idle=0.0,
        tomograms=tuple(arrival.path for arrival in some),
        half_maps=tuple(path for arrival in some for path in arrival.half_maps),
    )
