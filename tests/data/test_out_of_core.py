import pytest
import torch

from f2fd_core.data import source
from f2fd_core.data.out_of_core import sections_of, spectrum_of

SHAPES = [(9, 12, 10), (16, 7, 11)]


@pytest.fixture(autouse=True)
def few_sections(monkeypatch):
    """Slabs of two or three sections, so that there are several."""
    monkeypatch.setattr(source, "SLAB_VOXELS", 300)


@pytest.mark.parametrize("shape", SHAPES)
def test_transforms_by_slabs_are_those_of_the_whole(shape):
    assert len(source.slabs(shape)) > 2
    volume = torch.randn(shape)
    spectrum = spectrum_of(lambda slab: volume[slab], shape)
    torch.testing.assert_close(spectrum, torch.fft.rfftn(volume), rtol=1e-4, atol=1e-4)
    filtered = spectrum * torch.rand(spectrum.shape)
    expected = torch.fft.irfftn(filtered, s=shape)
    slabs, sections = zip(*sections_of(filtered.clone(), shape))
    assert list(slabs) == source.slabs(shape)
    torch.testing.assert_close(torch.cat(sections), expected, rtol=1e-4, atol=1e-5)
