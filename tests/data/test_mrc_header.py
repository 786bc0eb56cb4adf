"""Files as nobody should write them: every header and content that hypothesis can think of.

Each is either read, and then rightly, or refused in one sentence. In between there is nothing: no
traceback, no endless wait, no memory that the file's size does not warrant.
"""

import bz2
import gzip
import json
import os
import tracemalloc

import mrcfile
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mrcfile.dtypes import HEADER_DTYPE

from f2fd_core.cli import main
from f2fd_core.config import UserError
from f2fd_core.data import mrc
from f2fd_core.data.volume import Volume
from f2fd_core.evaluation.metrics import fourier_shell_correlation

CASES = int(os.environ.get("F2FD_TEST_CASES", 1000))
PLAIN_MEMORY = 3 << 20
MEMORY_FACTOR = 60
"""What reading may take: so many bytes, and so many times the file (float64 copies of a slab)."""
DTYPES = {0: "i1", 1: "i2", 2: "f4", 6: "u2", 12: "f2"}
WIDTHS = {
    **{mode: np.dtype(kind).itemsize for mode, kind in DTYPES.items()},
    3: 4,
    4: 8,
    16: 3,
    101: 1,
}
ODD = st.one_of(
    st.integers(-3, 70),
    st.integers(-(2**31), 2**31 - 1),
    st.sampled_from([2**31 - 1, -(2**31), 2**16, 2**20, 401]),
)
NUMBERS = st.one_of(st.floats(width=32), st.sampled_from([0.0, 1e30, -1.0, 1e-30]))
LIES = {
    "nx": ODD,
    "ny": ODD,
    "nz": ODD,
    "mode": ODD,
    "mx": ODD,
    "my": ODD,
    "mz": ODD,
    "nxstart": ODD,
    "nystart": ODD,
    "nzstart": ODD,
    "ispg": ODD,
    "nsymbt": ODD,
    "mapc": ODD,
    "mapr": ODD,
    "maps": ODD,
    "dmin": NUMBERS,
    "dmax": NUMBERS,
    "rms": NUMBERS,
    **{name: st.tuples(NUMBERS, NUMBERS, NUMBERS) for name in ("cella", "cellb", "origin")},
    "exttyp": st.sampled_from([b"FEI1", b"SERI", b"AGAR", b"\0\0\0\0"]),
    "map": st.sampled_from([b"MAP ", b"MAP\0", b"PAM ", b"\0\0\0\0"]),
    "machst": st.sampled_from([b"\x44\x44\0\0", b"\x11\x11\0\0", b"\xff\0\0\0"]),
    "nlabl": ODD,
}
LABELS = st.binary(min_size=100, max_size=100)


@st.composite
def files(draw):
    """(content of a file, the volume that it holds if it is a good one, else None)."""
    mode = draw(st.sampled_from(sorted(WIDTHS)))
    shape = draw(st.tuples(*[st.integers(8, 14)] * 3))
    order = draw(st.sampled_from("<>"))
    values = np.random.default_rng(draw(st.integers(0, 99))).integers(-100, 100, shape)
    if mode in DTYPES:
        values = np.abs(values) if mode == 6 else values
        content = values.astype(np.dtype(DTYPES[mode]).newbyteorder(order)).tobytes()
    else:
        content = bytes(values.size * WIDTHS[mode])
    extended = draw(st.sampled_from([0, 0, 0, 80, 1024, 768]))
    header = np.zeros((), HEADER_DTYPE.newbyteorder(order))
    for names, numbers in (
        (("nx", "ny", "nz"), shape[::-1]),
        (("mx", "my", "mz"), shape[::-1]),
        (("mapc", "mapr", "maps"), (1, 2, 3)),
    ):
        for name, number in zip(names, numbers):
            header[name] = number
    header["mode"], header["ispg"], header["nsymbt"] = mode, 1, extended
    header["cella"] = tuple(5.0 * side for side in shape[::-1])
    header["map"] = b"MAP "
    header["machst"] = list(b"\x44\x44\0\0" if order == "<" else b"\x11\x11\0\0")
    lies = draw(st.dictionaries(st.sampled_from(sorted(LIES)), st.none(), max_size=3))
    for name in lies:
        lie = draw(LIES[name])
        header[name] = list(lie) if name == "machst" else lie
    data = header.tobytes() + bytes(extended) + content
    fault = draw(st.sampled_from(["", "", "", "", "cut", "more", "gzip", "bzip2", "noise"]))
    if fault == "cut":
        data = data[: draw(st.integers(0, len(data)))]
    elif fault == "more":
        data += bytes(draw(st.integers(1, 5000)))
    elif fault == "gzip":
        data = gzip.compress(data, 1)
    elif fault == "bzip2":
        data = bz2.compress(data, 1)
    elif fault == "noise":
        place = draw(st.integers(0, 1023))
        data = data[:place] + draw(LABELS) + data[place + 100 :]
    good = mode in DTYPES and not lies and fault in ("", "more")
    return data, values.astype(float) if good else None


@pytest.mark.slow
@pytest.mark.reliability(
    "MRC files of every mode and byte order, with lying headers and spoilt content",
    "read rightly, or one sentence; memory in proportion to the file",
)
def test_any_file_is_read_rightly_or_refused(tmp_path, record_property):
    path = tmp_path / "any.mrc"
    counts = {"read": 0, "refused": 0}

    @settings(
        max_examples=CASES,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files())
    def check(case):
        content, expected = case
        path.write_bytes(content)
        tracemalloc.start()
        try:
            volume = Volume(str(path))
        except UserError as error:
            counts["refused"] += 1
            assert expected is None, error
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            counts["read"] += 1
            assert volume.source.data.nbytes <= len(content) - mrc.HEADER_BYTES
            assert np.isfinite(volume.region((0, 0, 0), volume.shape)).all()
            assert np.isfinite([volume.mean, volume.std, *volume.source.origin]).all()
            assert min(volume.source.voxel_size) > 0
            if expected is not None:
                np.testing.assert_array_equal(np.asarray(volume.data[:], float), expected)
        finally:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
        assert peak < PLAIN_MEMORY + MEMORY_FACTOR * len(content)

    check()
    assert min(counts.values()) > CASES / 20
    record_property("times", sum(counts.values()))


@pytest.mark.slow
@pytest.mark.reliability(
    "the same files on the command line", "exit code 0 and the right figures, or 2 and one sentence"
)
def test_any_file_on_the_command_line(tmp_path, capsys, record_property):
    path, other = tmp_path / "any.mrc", tmp_path / "other.mrc"
    cases = [0]

    @settings(
        max_examples=CASES // 10,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(files())
    def check(case):
        content, expected = case
        path.write_bytes(content)
        partner = (
            np.random.default_rng(0)
            .normal(size=(10, 10, 10) if expected is None else expected.shape)
            .astype(np.float32)
        )
        with mrcfile.new(other, overwrite=True) as stream:
            stream.set_data(partner)
            stream.voxel_size = 5.0
        code = main(["evaluate", str(path), "--half-map", str(other)])
        printed = capsys.readouterr()
        cases[0] += 1
        if code == 0:
            scores = json.loads(printed.out)["half_maps"]
            if expected is not None:
                _, curve = fourier_shell_correlation(
                    torch.from_numpy(expected).float(), torch.from_numpy(partner)
                )
                assert scores["fsc_mean"] == pytest.approx(float(curve.mean()), abs=1e-4)
        else:
            assert code == 2 and expected is None
            (sentence,) = printed.err.splitlines()
            assert sentence.startswith("f2fd: error: ")
            assert "any.mrc" in sentence or "other.mrc has shape" in sentence

    check()
    record_property("times", cases[0])


@pytest.mark.reliability("pipes, devices and bad links instead of a tomogram", "one sentence")
@pytest.mark.parametrize("kind", ["pipe", "device", "broken link", "circular link"])
def test_what_is_no_file_is_refused(kind, tmp_path):
    path = str(tmp_path / "odd.mrc")
    if kind == "pipe":
        os.mkfifo(path)
    else:
        os.symlink(
            {"device": "/dev/zero", "broken link": "nowhere", "circular link": "odd.mrc"}[kind],
            path,
        )
    with pytest.raises(UserError, match="odd.mrc (does not exist|is a device or a pipe)"):
        Volume(path)


def test_links_are_followed(tmp_path, write):
    values = np.random.default_rng(0).normal(size=(9, 10, 11)).astype(np.float32)
    os.symlink(write(values, "real.mrc"), tmp_path / "link.mrc")
    np.testing.assert_array_equal(Volume(str(tmp_path / "link.mrc")).data[:], values)
