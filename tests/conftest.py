"""Small simulated tomograms and a model trained on one, made once for all engine tests."""

import os
import pathlib
from multiprocessing.forkserver import ensure_running

import numpy as np
import processes
import pytest
import torch
from processes import CONTEXT, leave_pictures_out

from f2fd_core import DenoiseConfig, SimulateConfig, TrainConfig, denoise, fourier, simulate, train
from f2fd_core.data import mrc
from f2fd_core.data.regions import crop
from f2fd_core.network import checkpoint
from f2fd_core.noise import NoiseSettings, estimate_noise
from f2fd_core.runtime import distributed

TINY = dict(steps=6, patch_size=16, batch_size=2, features=8, checkpoint_every=6, device="cpu")


def pytest_itemcollected(item):
    """Coverage is of the quick tests: counting the lines that the others run takes minutes."""
    if "slow" in item.keywords:
        item.add_marker("no_cover")


@pytest.fixture(autouse=True)
def usual_signals():
    """Signals are not ignored in any test, nor in what it starts."""
    processes.usual_signals()


class Memory:
    """A volume in memory with what the perturbations and the estimate ask of one."""

    axes = (0, 1, 2)
    nyquist = 0.5

    def __init__(self, array):
        self.array = np.asarray(array, dtype=np.float32)
        self.shape = self.array.shape

    def region(self, start, size):
        return np.ascontiguousarray(crop(self.array, start, size))

    def content(self, start, size):
        return 1.0


class Leaving:
    """A network that leaves nothing but ``noise`` of a box out, whatever else there is, and of what
    is added to it the share ``removed``."""

    def __init__(self, noise, first=(0, 0, 0), removed=1.0):
        self.left_out, self.removed = np.asarray(noise), removed
        self.box = self.around = first, self.left_out.shape

    def left_out_with(self, added):
        return self.left_out + self.removed * added


def noise_if_known(volume, noise, settings=None, removed=1.0):
    """The NoiseModel of an array by a network that leaves out nothing but this ``noise`` of it."""
    settings = settings or NoiseSettings()
    return estimate_noise(Memory(volume), Leaving(noise, removed=removed), settings)


def coloured(k):
    """The power of coloured noise at |k| (cycles per voxel)."""
    return 0.2 + 2 * torch.exp(-((k / 0.2) ** 2))


def synthesised(power, shape, seed):
    """Gaussian noise (Z, Y, X) with a power that is a function of |k|."""
    amplitude = power(fourier.radial_frequency(shape)).sqrt()
    return fourier.synthesise(amplitude, shape, shape, 1, torch.Generator().manual_seed(seed))[0]


def back_projected_noise(power, shape, seed):
    """The same with a power that is a function of |k| times the distance to the tilt axis Y, as
    weighted back-projection makes it."""
    grid = fourier.grid_of(tuple(shape))
    amplitude = (power(grid.radius) * grid.from_axis).sqrt()
    return fourier.synthesise(amplitude, shape, shape, 1, torch.Generator().manual_seed(seed))[0]


def whole(volume):
    """All standardised voxels of a volume."""
    return volume.region((0, 0, 0), volume.shape)


def data(path):
    """The voxels of an MRC file."""
    return np.array(mrc.open_volume(path).data)


def labels(stream):
    """The labels of an open MRC file, for which mrcfile 1.4.0 has no method."""
    return [bytes(text).decode() for text in stream.header.label[: stream.header.nlabl]]


def weights(path):
    """The weights in a model file."""
    return checkpoint.load(str(path))["model"]


def assert_same_weights(one, other, part="model"):
    """``part``: of model files, "model" or checkpoint.FILLER."""
    one, other = (checkpoint.load(str(path))[part] for path in (one, other))
    for name in one:
        assert torch.equal(one[name], other[name]), name


@pytest.fixture(scope="session")
def phantom(tmp_path_factory):
    """Paths of a simulated cell of 40 x 48 x 72 voxels: {name: path}."""
    folder = tmp_path_factory.mktemp("phantom")
    return simulate(SimulateConfig(output=str(folder), shape=(40, 48, 72), snr=0.3, seed=3))


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """The same of 24 x 40 x 32 voxels, where any tomogram will do."""
    folder = tmp_path_factory.mktemp("small")
    return simulate(SimulateConfig(output=str(folder), shape=(24, 40, 32), snr=0.3, seed=4))


@pytest.fixture(scope="session")
def tiny_model(phantom, tmp_path_factory):
    """Folder of a model that was hardly trained: fast, and good enough for what isn't quality."""
    folder = tmp_path_factory.mktemp("tiny")
    train(
        TrainConfig(
            tomograms=(phantom["tomogram"],), output=str(folder), **dict(TINY, checkpoint_every=3)
        )
    )
    return folder


@pytest.fixture(scope="session")
def filler(phantom, tmp_path_factory):
    """Folder of a model that has learned, a little, to fill the missing wedge."""
    folder = tmp_path_factory.mktemp("filler")
    train(
        TrainConfig(tomograms=(phantom["tomogram"],), output=str(folder), fill_wedge=True, **TINY)
    )
    return folder


@pytest.fixture(autouse=True)
def without_pictures(request, monkeypatch):
    """Only tests that are marked ``pictures`` have them drawn, and what is made once for all
    tests."""
    if "pictures" not in request.keywords:
        leave_pictures_out(monkeypatch.setattr)


def fork(patch):
    """Let processes be forked from the server of ``processes``, which has imported PyTorch already
    and which would keep what signals are blocked where it is started."""
    ensure_running()
    patch.setattr(distributed, "START_METHOD", CONTEXT.get_start_method())


@pytest.fixture
def forked(monkeypatch):
    """Processes are forked, see :func:`fork`."""
    fork(monkeypatch)


@pytest.fixture
def quick_denoise(tiny_model):
    """Denoise one file with the tiny model: (path, output folder, options) -> result's path."""

    def run(path, output, **options):
        return denoise(
            DenoiseConfig(
                model=str(tiny_model / "model.pt"),
                tomograms=(str(path),),
                output=str(output),
                **{"device": "cpu", "tile_size": 32, **options},
            )
        )[0]

    return run


@pytest.fixture
def write(tmp_path):
    """Write an array as a float32 MRC file in the test's folder; returns its path."""

    def to_file(array, name="volume.mrc", voxel_size=10.0):
        path = str(tmp_path / name)
        mrc.write_volume(path, np.asarray(array, dtype=np.float32), voxel_size)
        return path

    return to_file


@pytest.fixture(scope="session")
def real_data():
    """Folder of the real tomograms, named by F2FD_TEST_DATA."""
    folder = os.environ.get("F2FD_TEST_DATA")
    if not folder:
        pytest.skip("F2FD_TEST_DATA does not name a folder of real tomograms")
    return pathlib.Path(folder)
