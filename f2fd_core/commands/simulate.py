"""``f2fd simulate``: a tomogram and what is known of it."""

import os

from f2fd_core.data import mrc
from f2fd_core.runtime import console, files, lock
from f2fd_core.simulation.microscope import FILES, simulate_volumes


def simulate(config):
    """Write the simulated volumes of a SimulateConfig as MRC files; returns {name: path}."""
    paths = {name: os.path.join(config.output, name + ".mrc") for name in FILES}
    files.refuse_existing(paths.values(), config.overwrite)
    files.make_folder(config.output)
    with lock.held(os.path.join(config.output, "simulation")):
        for name, volume in simulate_volumes(config).items():
            mrc.write_volume(paths[name], volume, config.voxel_size)
    console.say(f"simulated volumes written to {config.output}")
    return paths
