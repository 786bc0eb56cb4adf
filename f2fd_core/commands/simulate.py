"""``f2fd simulate``: a tomogram and what is known of it."""

import os
from typing import Dict

from f2fd_core.config import SimulateConfig
from f2fd_core.data import mrc
from f2fd_core.runtime import console, files, lock
from f2fd_core.simulation.microscope import FILES, simulate_volumes


def simulate(config: SimulateConfig) -> Dict[str, str]:
    """Simulate a tomogram, and write it with what is known of it as MRC files.

    Parameters
    ----------
    config : SimulateConfig

    Returns
    -------
    dict of str to str
        {name: path} of the tomogram, its half-maps (odd, even), the reconstruction without noise
        (clean), the density, and the mask of its membranes.

    Raises
    ------
    UserError
        If a file is there and must not be replaced.
    """
    paths = {name: os.path.join(config.output, name + ".mrc") for name in FILES}
    files.refuse_existing(paths.values(), config.overwrite)
    files.make_folder(config.output)
    with lock.held(os.path.join(config.output, "simulation")):
        for name, volume in simulate_volumes(config).items():
            mrc.write_volume(paths[name], volume, config.voxel_size)
    console.say(f"simulated volumes written to {config.output}")
    return paths
