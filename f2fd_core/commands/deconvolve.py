"""``f2fd deconvolve``: tomograms through the Wiener-like filter."""

import dataclasses
import os
from typing import List

import numpy as np

from f2fd_core.config import DeconvolveConfig
from f2fd_core.data import formats
from f2fd_core.data.source import refuse_bad_voxels
from f2fd_core.filters.ctf_table import ctf_of
from f2fd_core.filters.deconvolution import deconvolved
from f2fd_core.runtime import console, figures, files, lock
from f2fd_core.runtime.device import prepare_cpu


def deconvolve(config: DeconvolveConfig) -> List[str]:
    """Filter tomograms with the Wiener-like deconvolution.

    Each ``<name>_deconvolved.mrc`` is float32 with the input's mean, standard deviation, voxel
    size, origin and start indices. Everything is checked before the first is computed.

    Parameters
    ----------
    config : DeconvolveConfig

    Returns
    -------
    list of str
        The paths of the results.

    Raises
    ------
    UserError
        For bad input, naming the option or file.

    References
    ----------
    Tegunov & Cramer, Nature Methods 16 (2019) 1146; Liu et al., Nature Communications 13 (2022)
    6482.
    """
    prepare_cpu(config.threads)
    config, sources, paths = _plan(config)
    settings = {
        path: dataclasses.replace(config, **ctf_of(path, config)) for path in config.tomograms
    }
    files.make_folder(config.output)
    for source in sources:
        path = paths[source.path]
        with lock.held(path), formats.new_volume(
            path, **source.header(), labels=source.labels, done="deconvolved"
        ) as data:
            deconvolved(source, source.true_voxel_size[0], settings[source.path], data)
            before, after = (
                [
                    np.array(values[index], dtype=np.float32)
                    for index in figures.central_slices(source.shape)
                ]
                for values in (source, data)
            )
        figures.draw_slices(before, after, _picture(path), source.name)
        console.say(f"written to {path}")
    return list(paths.values())


def _plan(config):
    """(the DeconvolveConfig without results among its tomograms, these opened,
    {tomogram: path of its result}); raises UserError for bad input."""
    left_out = files.results_among(config.tomograms)
    console.warn_of_results(left_out)
    config = dataclasses.replace(
        config, tomograms=tuple(path for path in config.tomograms if path not in left_out)
    )
    paths = files.output_paths(config.tomograms, config.output, files.NAME + files.DECONVOLVED)
    results = [*paths.values(), *map(_picture, paths.values())]
    files.refuse_existing(results, config.overwrite)
    sources = [formats.open_volume(name, config.voxel_size) for name in config.tomograms]
    for source in sources:
        refuse_bad_voxels(source)
        for doubt in source.doubts():
            console.warn(doubt)
    files.refuse_inputs(results, [*config.tomograms, *formats.originals(left_out)])
    return config, sources, paths


def _picture(path):
    return os.path.splitext(path)[0] + files.PICTURE
