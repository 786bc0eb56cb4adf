"""The two real microtubule tomograms: no ground truth, so what is removed must look like noise."""

import mrcfile
import numpy as np
import pytest

from f2fd_core import DenoiseConfig, TrainConfig, denoise, train
from f2fd_core.data import mrc


@pytest.mark.slow
@pytest.mark.parametrize("name", ["microtubule_13pf.mrc", "microtubule_14pf.mrc"])
def test_real_tomogram_is_denoised(real_data, name, tmp_path):
    source = mrc.open_volume(str(real_data / name))
    model = train(
        TrainConfig(
            tomograms=(source.path,),
            output=str(tmp_path / "run"),
            steps=60,
            patch_size=32,
            device="cpu",
            checkpoint_every=60,
        )
    )
    result = denoise(
        DenoiseConfig(model=model, tomograms=(source.path,), std=True, output=str(tmp_path / "out"))
    )[0]
    assert mrcfile.validate(result)
    denoised = mrc.open_volume(result)
    assert denoised.voxel_size == pytest.approx(source.voxel_size)
    before = np.asarray(source.data, np.float64)
    after = np.asarray(denoised.data, np.float64)
    removed = before - after
    # Contrast and scale are the input's, much is removed, and it has little to do with the rest.
    assert np.corrcoef(before.ravel(), after.ravel())[0, 1] > 0.2
    assert abs(after.mean() - before.mean()) < 0.2 * before.std()
    assert after.std() < 0.9 * before.std()
    assert abs(np.corrcoef(removed.ravel(), after.ravel())[0, 1]) < 0.35
    # Bright protein in these two tomograms, before and after.
    strong = after > np.quantile(after, 0.99)
    assert before[strong].mean() > before.mean() + 0.5 * before.std()
