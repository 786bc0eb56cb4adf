"""The slab in which the specimen lies: found where there is one, and not where there is none."""

import json
import os

import numpy as np
import pytest
from conftest import TINY, assert_same_weights, data

from f2fd_core import SimulateConfig, TrainConfig, UserError, simulate, train
from f2fd_core.data.specimen import Slab, depth_of, find_specimen
from f2fd_core.data.volume import Volume

SHAPE = (112, 96, 128)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """Signal and noise of a crowded cell that fills its box."""
    folder = tmp_path_factory.mktemp("specimen")
    paths = simulate(
        SimulateConfig(output=str(folder), shape=SHAPE, snr=0.2, seed=5, specimen="crowded")
    )
    signal = data(paths["clean"])
    return signal, data(paths["tomogram"]) - signal


def everywhere(slab):
    return slab[(slice(None),) * 3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("slopes", "first", "last"), [((0, 0), 30, 75), ((0.1, -0.15), 35, 80), ((0.0, 0.2), 50, 112)]
)
def test_a_slab_is_found_where_it_lies(parts, write, slopes, first, last):
    """Nearly all of it is inside, and half or more of what is empty outside."""
    signal, noise = parts
    truth = everywhere(Slab(SHAPE, 0, slopes, first, last))
    found = everywhere(find_specimen(Volume(write(noise + signal * truth))))
    assert found[truth].mean() > 0.9
    assert found[~truth].mean() < 0.5


@pytest.mark.slow
def test_another_depth_axis(parts, write):
    signal, noise = parts
    truth = everywhere(Slab(SHAPE, 0, (0, 0), 30, 75))
    volume = Volume(write((noise + signal * truth).transpose(1, 0, 2)))
    volume.axes_found = (1, 0, 2)
    found = find_specimen(volume)
    assert found.axis == 1 and everywhere(found).transpose(1, 0, 2)[truth].mean() > 0.9
    assert "along Y" in found.describe()


@pytest.mark.slow
def test_nothing_is_found_where_there_is_no_border(parts, write):
    """In noise, in a cell that is everywhere, and in what is too thin to tell."""
    signal, noise = parts
    assert find_specimen(Volume(write(noise))) is None
    assert find_specimen(Volume(write(noise + signal))) is None
    assert find_specimen(Volume(write((noise + signal)[:40]))) is None


def test_a_slab_is_read_like_an_array():
    slab = Slab((20, 30, 40), 0, (0.1, 0.0), 5, 12)
    whole = everywhere(slab)
    part = (slice(3, 15), slice(10, 12), slice(None))
    np.testing.assert_array_equal(slab[part], whole[part])
    for axis, section in enumerate(slab.central_sections()):
        np.testing.assert_array_equal(section, whole.take(whole.shape[axis] // 2, axis))
    height = depth_of(np.ogrid[:20, :30, :40], slab.shape, 0, slab.slopes)
    assert whole.sum() == ((height >= 5) & (height <= 12)).sum()
    # It rises along Y.
    first = whole.argmax(0)
    assert (first[-1] > first[0]).all()


@pytest.mark.slow
@pytest.mark.pictures
def test_a_training_learns_from_the_slab(parts, write, tmp_path, capsys):
    """Its patches and held-out parts lie there; the mask is a file that the option takes."""
    signal, noise = parts
    truth = everywhere(Slab(SHAPE, 0, (0, 0), 70, 112))
    tomogram = write(noise + signal * truth, "cell.mrc")
    common = dict(TINY, tomograms=(tomogram,), steps=1)
    train(TrainConfig(output=str(tmp_path / "a"), sampling_masks=("auto",), **common))
    said = capsys.readouterr().err
    assert "cell: the specimen is" in said
    assert sorted(os.listdir(tmp_path / "a" / "masks")) == ["1_cell.mrc", "1_cell.png"]
    mask = str(tmp_path / "a" / "masks" / "1_cell.mrc")
    values = data(mask)
    assert set(np.unique(values)) == {0, 1} and values[truth].mean() > 0.9
    train(TrainConfig(output=str(tmp_path / "b"), sampling_masks=(mask,), **common))
    assert_same_weights(*(tmp_path / name / "model.pt" for name in "ab"))
    recorded = json.loads((tmp_path / "a" / "train.json").read_text())
    assert recorded["sampling_masks"] == ["auto"]
    with pytest.raises(UserError, match="--rescale is given beside --sampling-masks"):
        TrainConfig(rescale=True, sampling_masks=(mask,), **common)
    TrainConfig(rescale=True, sampling_masks=("auto",), **common)
