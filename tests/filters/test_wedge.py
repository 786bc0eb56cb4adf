import numpy as np
import pytest
import torch
from conftest import Memory, synthesised

from f2fd_core import SimulateConfig, UserError, simulate
from f2fd_core.data.source import Source
from f2fd_core.data.volume import Volume
from f2fd_core.filters import wedge

RANGES = [(-60.0, 60.0), (-48.0, 66.0)]


def planes_of(volume, axes=(0, 1, 2)):
    return torch.from_numpy(np.ascontiguousarray(np.transpose(volume, axes), np.float32))


@pytest.mark.parametrize("shape", [(32, 6, 48), (33, 5, 47), (20, 4, 20)])
@pytest.mark.parametrize("tilt_range", RANGES)
@pytest.mark.parametrize("turned", [False, True])
def test_measured_and_missing_parts_make_the_whole(shape, tilt_range, turned):
    """Both are projections: real volumes, which add up and have nothing in common."""
    volume = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    chosen = wedge.measured(shape[0], shape[2], tilt_range, turned)
    seen, missing = wedge.part(volume, chosen), wedge.part(volume, ~chosen)
    torch.testing.assert_close(seen + missing, volume, atol=1e-5, rtol=0)
    torch.testing.assert_close(wedge.part(seen, chosen), seen, atol=1e-5, rtol=0)
    assert abs(float((seen * missing).mean())) < 1e-6
    assert float(missing.var()) == pytest.approx(float((~chosen).float().mean()), abs=0.1)


@pytest.mark.parametrize("tilt_range", RANGES)
def test_turned_by_90_degrees_the_wedge_lies_beside_itself(tilt_range):
    missing = ~wedge.measured(64, 64, tilt_range)
    also = ~wedge.measured(64, 64, tilt_range, turned=True)
    assert missing.float().mean() > 0.2 and also.float().mean() > 0.2
    assert not (missing & also).any()


def test_only_the_wedge_is_filled():
    volume, other = torch.randn(2, 24, 5, 36, generator=torch.Generator().manual_seed(2))
    chosen = wedge.measured(24, 36, RANGES[1])
    filled = wedge.filled(volume, other, RANGES[1])
    for part, source in ((chosen, volume), (~chosen, other)):
        torch.testing.assert_close(wedge.part(filled, part), wedge.part(source, part))


def test_a_simulated_tilt_series_measures_what_is_said(phantom):
    """What back-projection of tilts up to 60 degrees makes has hardly any power in the wedge."""
    planes = planes_of(Volume(phantom["tomogram"]).region((0, 0, 0), (40, 48, 72)))
    chosen = wedge.measured(40, 72, (-60, 60))
    assert wedge.part(planes, ~chosen).var() < 0.03 * planes.var()
    # The cone across would have as many coefficients.
    turned = wedge.measured(40, 72, (-60, 60), turned=True)
    assert wedge.part(planes, ~turned).var() > 0.1 * planes.var()


@pytest.mark.parametrize("angle", [45.0, 60.0, 70.0])
def test_the_tilt_range_is_found(angle, tmp_path):
    made = simulate(
        SimulateConfig(output=str(tmp_path), shape=(48, 64, 96), tilt_range=angle, snr=0.3)
    )
    found = wedge.tilt_range_of(Volume(made["tomogram"]))
    assert found == pytest.approx((-angle, angle), abs=3)
    assert wedge.tilt_range_of(Volume(made["tomogram"]), 51) == (-51, 51)


class Lying(Memory):
    """A volume whose depth, tilt axis and direction across lie along other axes."""

    def __init__(self, array, axes):
        super().__init__(array)
        self.axes, self.source = axes, Source("volume.mrc", (1, 1, 1), 0, (0, 0, 0), (), None)


@pytest.mark.parametrize("axes", [(0, 1, 2), (0, 2, 1), (1, 0, 2)])
def test_the_tilt_range_is_found_whichever_side_is_longer_and_however_it_lies(axes):
    noise = synthesised(lambda k: 0.1 + (k < 0.1), (64, 32, 80), 3)
    seen = wedge.part(noise, wedge.measured(64, 80, RANGES[1])).numpy()
    found = wedge.tilt_range_of(Lying(np.transpose(seen, np.argsort(axes)), axes))
    assert found == pytest.approx(RANGES[1], abs=3)


@pytest.mark.reliability(
    "a wedge filled by a model that has not learned it, or where there is none", "one sentence"
)
def test_without_a_wedge_the_angle_is_asked_for():
    noise = synthesised(lambda k: 1 + 0 * k, (40, 32, 48), 4)
    with pytest.raises(UserError, match="no missing wedge; .* --tilt-range"):
        wedge.tilt_range_of(Lying(noise.numpy(), (0, 1, 2)))
