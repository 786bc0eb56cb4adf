from types import SimpleNamespace

import numpy as np
import pytest
from matplotlib import image
from matplotlib.figure import Figure

from f2fd_core.runtime import console, figures, train_log


def test_progress_where_there_is_no_terminal_is_a_line_now_and_then(capsys, monkeypatch):
    seconds = iter(range(0, 1000, 8))
    monkeypatch.setattr(console, "time", SimpleNamespace(monotonic=lambda: next(seconds)))
    with console.progress(9, "step", 2) as bar:
        for number in range(7):
            bar.set_postfix(loss=f"{number}", refresh=False)
            bar.update()
    said = capsys.readouterr().err
    assert "\r" not in said
    lines = said.splitlines()
    assert len(lines) == 3 and all(line.startswith("f2fd: ") for line in lines)
    for line, words in zip(lines, (["2/9"], ["6/9", "loss=3"], ["9/9", "loss=6"])):
        assert all(word in line for word in words)


def test_progress_without_a_known_end(capsys):
    with console.progress(None, "step") as bar:
        bar.update()
    assert "1step" in capsys.readouterr().err.splitlines()[-1]


@pytest.mark.pictures
def test_y_and_z_go_up_in_pictures_as_in_3dmod(tmp_path):
    """XZ lies above XY, with which it has X in common."""
    path = str(tmp_path / "slices.png")
    first = np.arange(32) < 16
    xy, xz = (
        np.repeat(np.where(first, low, high)[:, None], 32, 1)
        for low, high in ((0.2, 0.4), (0.6, 0.8))
    )
    yz = np.repeat(first[:, None], 32, 1).astype(float)  # black and white
    figures.draw_slices((xy, xz, yz), (xy, xz, yz), path, "")
    picture = image.imread(path)[..., 0]
    panel = picture[:, : picture.shape[1] // 3]
    rows = [np.argwhere(abs(panel - level) < 0.02)[:, 0].mean() for level in (0.8, 0.6, 0.4, 0.2)]
    assert rows == sorted(rows)  # counted from the top


def log_of(*checks):
    """Rows of a log with these explained powers; the signal's power is 0.5, as the best shows."""
    return [
        dict(
            step=str(step),
            loss="2.7",
            learning_rate="0.001",
            validation_loss="",
            explained_power=power,
            signal_power="0.5" if power == max(checks) else "0.3",
        )
        for step, power in enumerate(checks)
    ]


def test_the_best_network_shows_how_much_of_the_signal_is_explained():
    np.testing.assert_allclose(
        train_log.signal_explained(log_of("0.1", "", "0.4", "0.2")), [0.2, np.nan, 0.8, 0.4]
    )
    nothing = dict(explained_power="0.1", signal_power="-0.1")
    assert np.isnan(train_log.signal_explained([nothing])).all()
    assert np.isnan(train_log.signal_explained([dict(step="0", loss="1")])).all()  # of version 1.0


def test_what_a_training_gained_is_plotted_or_its_loss_where_that_is_not_known():
    axes = Figure().subplots()
    figures.plot_training(axes, log_of("0.1", "", "0.4", ""))
    np.testing.assert_allclose(axes.lines[0].get_xydata(), [(0, 20), (2, 80)])
    assert axes.get_ylim() == (0, 100)
    axes = Figure().subplots()
    figures.plot_training(axes, log_of("", "", ""))
    np.testing.assert_array_equal(axes.lines[0].get_ydata(), [2.7] * 3)
    assert axes.get_ylabel() == "loss"
