import mrcfile
import numpy as np
import pytest
from bad_files import FAULTS, RAMP, faulty, save
from conftest import labels

from f2fd_core import __version__
from f2fd_core.config import UserError
from f2fd_core.data import formats, mrc
from f2fd_core.data.volume import Volume


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_reads_every_mode_and_byte_order(tmp_path, dtype, order):
    kind = np.dtype(dtype).newbyteorder(order)
    path = save(tmp_path / "a.mrc", RAMP.astype(kind))
    volume = mrc.open_volume(path)
    np.testing.assert_array_equal(np.asarray(volume.data, dtype=float), RAMP)
    assert volume.voxel_size == (7.5, 7.5, 7.5)


def test_unsigned_bytes_of_imod(tmp_path):
    """Mode 0 with IMOD's stamp and without its flag for signed bytes holds 0..255."""
    values = (RAMP * 2).astype(np.uint8)
    path = save(tmp_path / "a.mrc", values.view(np.int8))
    np.testing.assert_array_equal(mrc.open_volume(path).data, values.view(np.int8))
    with open(path, "r+b") as stream:
        stream.seek(152)
        stream.write(np.array([1146047817, 0], dtype="<i4").tobytes())
    np.testing.assert_array_equal(mrc.open_volume(path).data, values)


IMOD = 1146047817


def stamped(path, flags, nversion=0):
    """Mark a file as IMOD does."""
    with mrcfile.mmap(path, "r+") as stream:
        extra = bytearray(bytes(stream.header.extra2))
        extra[40:48] = np.array([IMOD, flags], "<i4").tobytes()
        stream.header.extra2 = bytes(extra)
        stream.header.nversion = nversion
    return path


@pytest.mark.reliability(
    "bytes (MRC mode 0) without IMOD's stamp", "read as what they are, signed or unsigned"
)
@pytest.mark.parametrize(
    ("low", "high", "unsigned"),
    [
        (0, 255, True),
        (0, 100, True),
        (-128, 127, False),
        (-3, 90, False),
        (-20, 255, True),
        (-120, 140, False),
        (0, 0, None),
        (3, -3, None),
        (np.nan, np.nan, None),
    ],
)
@pytest.mark.parametrize("shift", [0, 128])
def test_bytes_of_others_are_signed_by_their_extremes(tmp_path, low, high, unsigned, shift):
    """As IMOD takes them; where the header has no extremes, about 128 they can't be signed."""
    values = np.random.default_rng(0).normal(shift, 20, (9, 10, 11)).round().astype(np.int16)
    path = save(tmp_path / "a.mrc", values.astype(np.uint8).view(np.int8), dmin=low, dmax=high)
    if unsigned is None:
        unsigned = shift == 128
    expected = values % 256 if unsigned else (values + 128) % 256 - 128
    np.testing.assert_array_equal(mrc.open_volume(path).data[:].astype(int), expected)


def as_imod_takes_it(path):
    """The origin (x, y, z), whose sign IMOD turns in the standard's files."""
    with mrcfile.open(path, permissive=True, header_only=True) as stream:
        stamp, flags = np.frombuffer(bytes(stream.header.extra2)[40:48], "<i4")
        turned = stamp == IMOD and flags & 4 or stream.header.nversion >= 20140
        return [(-1 if turned else 1) * float(stream.header.origin[axis]) for axis in "xyz"]


@pytest.mark.reliability(
    "origins with IMOD's sign and with the standard's",
    "results lie where the tomogram does, for both",
)
@pytest.mark.parametrize(
    ("flags", "nversion", "sign"), [(0, 0, -1), (1, 0, -1), (4, 0, 1), (0, 20140, 1), (4, 20141, 1)]
)
def test_the_origin_of_imod(tmp_path, flags, nversion, sign):
    """What is made of such a file lies where it does, for IMOD and by the standard."""
    path = stamped(
        save(tmp_path / "a.mrc", RAMP.astype(np.float32), origin=(-480.0, 250.0, 0.0)),
        flags,
        nversion,
    )
    source = mrc.open_volume(path)
    assert source.origin == (sign * -480, sign * 250, 0)
    result = str(tmp_path / "b.mrc")
    with formats.new_volume(result, **source.header()):
        pass
    assert as_imod_takes_it(result) == as_imod_takes_it(path)
    first = (1, 2, 3)
    with formats.new_volume(result, **source.header(first, (4, 4, 4))):
        pass
    np.testing.assert_allclose(
        mrc.open_volume(result).origin, np.add(source.origin, 7.5 * np.array(first[::-1]))
    )


def test_labels_are_kept(tmp_path, capsys):
    result = str(tmp_path / "b.mrc")
    for count in (2, 10):
        path = save(
            tmp_path / "a.mrc",
            RAMP.astype(np.float32),
            nlabl=count,
            label=[b"step %d" % number for number in range(count)] + [b""] * (10 - count),
        )
        source = mrc.open_volume(path)
        with formats.new_volume(result, **source.header(), labels=source.labels):
            pass
        assert mrcfile.validate(result), capsys.readouterr().out
        *kept, own = mrc.open_volume(result).labels
        assert kept == [b"step %d" % number for number in range(min(count, 9))]
        assert own.startswith(b"F2Fd ")


@pytest.mark.reliability("values near the end of float32", "a valid header")
def test_values_near_the_end_of_float32(tmp_path):
    """Their sum is beyond it (in mrcfile.validate of 1.4.0, too), and so is the sum of their
    squares: then the header's rms is -1, not determined."""
    values = np.random.default_rng(0).uniform(-3e38, 3e38, (9, 10, 11)).astype(np.float32)
    mrc.write_volume(str(tmp_path / "a.mrc"), values, 10.0)
    with mrcfile.open(tmp_path / "a.mrc") as stream:
        np.testing.assert_array_equal(stream.data, values)
        found = [float(stream.header[name]) for name in ("dmin", "dmax", "dmean", "rms")]
    exact = values.astype(np.float64)
    assert found == pytest.approx([exact.min(), exact.max(), exact.mean(), -1], rel=1e-5)


def test_extended_header_is_skipped(tmp_path):
    path = str(tmp_path / "a.mrc")
    with mrcfile.new(path) as stream:
        stream.set_data(RAMP.astype(np.float32))
        stream.set_extended_header(np.frombuffer(bytes(160), dtype="V1"))
        stream.voxel_size = 3
    np.testing.assert_array_equal(mrc.open_volume(path).data, RAMP)


def test_written_file_is_valid_and_complete(tmp_path, capsys):
    path = str(tmp_path / "out.mrc")
    values = np.random.default_rng(0).normal(3, 2, (9, 11, 13)).astype(np.float32)
    with formats.new_volume(
        path, values.shape, (2.0, 2.0, 2.5), origin=(1, 2, 3), start=(4, 5, 6)
    ) as data:
        data[:] = values
    assert mrcfile.validate(path), capsys.readouterr().out
    with mrcfile.open(path) as stream:
        header = stream.header
        np.testing.assert_array_equal(stream.data, values)
        assert stream.is_volume()
        assert tuple(stream.voxel_size.item()) == (2.0, 2.0, 2.5)
        assert (header.dmin, header.dmax) == (values.min(), values.max())
        assert header.dmean == pytest.approx(values.mean(), rel=1e-5)
        assert header.rms == pytest.approx(values.std(), rel=1e-5)
        assert [float(header.origin[axis]) for axis in "xyz"] == [1, 2, 3]
        assert (header.nxstart, header.nystart, header.nzstart) == (4, 5, 6)
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mrc"]


@pytest.mark.parametrize("fault", ["exception", "nan"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, fault):
    path = tmp_path / "out.mrc"
    path.write_bytes(b"old")

    def fill():
        with formats.new_volume(str(path), (4, 4, 4), (1, 1, 1)) as data:
            data[:] = 1
            if fault == "exception":
                raise RuntimeError("stopped")
            data[2, 1, 0] = np.nan

    with pytest.raises((RuntimeError, UserError)):
        fill()
    assert path.read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["out.mrc"]


@pytest.mark.parametrize("kind", FAULTS)
def test_bad_files_are_refused_by_name(tmp_path, kind):
    path, words = faulty(tmp_path, kind)
    with pytest.raises(UserError) as caught:
        Volume(str(path))
    for word in ["bad.mrc", *words]:
        assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_voxel_size_option_fills_in_a_missing_one_only(tmp_path):
    without = save(tmp_path / "a.mrc", RAMP.astype(np.float32), voxel_size=0)
    assert Volume(without, voxel_size=4.0).source.voxel_size == (4.0, 4.0, 4.0)
    has = Volume(save(tmp_path / "b.mrc", RAMP.astype(np.float32)), voxel_size=4.0)
    assert has.source.voxel_size == (7.5, 7.5, 7.5)
    assert "7.5 Å in its header, not the 4 Å" in has.warnings[0]
    assert has.voxel_size == 4.0  # what the user says, for the model's record


def test_results_get_the_voxel_size_that_is_stated(tmp_path):
    path = save(tmp_path / "a.mrc", RAMP.astype(np.float32), voxel_size=1)
    assert "--voxel-size" in Volume(path).warnings[0]
    stated = Volume(path, voxel_size=8.0).source
    assert "1 Å in its header, not the 8 Å" in stated.doubts()[0]
    assert not mrc.open_volume(path, 1.0).doubts()
    with formats.new_volume(str(tmp_path / "b.mrc"), **stated.header((1, 2, 3), (4, 4, 4))):
        pass
    result = mrc.open_volume(str(tmp_path / "b.mrc"))
    assert (result.voxel_size, result.origin) == ((8, 8, 8), (24, 16, 8))
    with pytest.raises(UserError, match="--voxel-size is 1e-49; expected 0"):
        Volume(path, voxel_size=1e-49)


def test_anisotropic_voxels_are_reported(tmp_path):
    path = str(tmp_path / "a.mrc")
    with mrcfile.new(path) as stream:
        stream.set_data(RAMP.astype(np.float32))
        stream.voxel_size = (10, 10, 12)
    assert "anisotropic voxels of 10 x 10 x 12" in Volume(path).warnings[0]


@pytest.mark.parametrize(
    ("done", "expected"),
    [
        ("", "F2Fd %s"),
        ("denoised by mödel.pt", "F2Fd %s: denoised by m?del.pt"),
        ("x" * 90, "F2Fd %s: " + "x" * (80 - len(f"F2Fd {__version__}: "))),
    ],
)
def test_the_label_says_what_made_a_file(tmp_path, done, expected):
    path = str(tmp_path / "made.mrc")
    with formats.new_volume(path, (8, 8, 8), (10.0,) * 3, done=done):
        pass
    assert mrcfile.validate(path)
    with mrcfile.open(path, header_only=True) as stream:
        (label,) = labels(stream)
    assert label == (expected % __version__).ljust(80)
