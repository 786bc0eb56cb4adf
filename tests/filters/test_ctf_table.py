"""Each tomogram's own CTF, from CSV and STAR files."""

import numpy as np
import pytest
from conftest import data

from f2fd_core import DeconvolveConfig, DenoiseConfig, TrainConfig, UserError
from f2fd_core.commands.deconvolve import deconvolve
from f2fd_core.filters.ctf_table import ctf_of, read_table


@pytest.fixture
def table(tmp_path):
    """Write a CSV file: lines -> path."""

    def write(*lines, name="ctf.csv"):
        path = tmp_path / name
        path.write_text("\r\n".join(lines) + "\r\n", encoding="utf-8-sig")
        return str(path)

    return write


def test_every_tomogram_is_deconvolved_with_its_own(small, table, tmp_path):
    """As two runs with one defocus each."""
    path = table(
        "tomogram, defocus, phase_shift, voltage", "tomogram.mrc, 2, 0, 200", "odd, 5, 90, 300"
    )
    names = small["tomogram"], small["odd"]
    together = deconvolve(
        DeconvolveConfig(tomograms=names, output=str(tmp_path / "both"), ctf=path)
    )
    alone = [
        deconvolve(DeconvolveConfig(tomograms=(name,), output=str(tmp_path / str(number)), **own))
        for number, (name, own) in enumerate(
            zip(names, (dict(defocus=2, voltage=200), dict(defocus=5, phase_shift=90)))
        )
    ]
    for one, (other,) in zip(together, alone):
        np.testing.assert_array_equal(data(one), data(other))


def test_whose_values_count(table):
    """A tomogram's row before an option, its own options before those of the training."""
    path = table("tomogram,defocus", "a,2", "b,4")
    trained = TrainConfig(deconvolve=True, ctf=path, voltage=200)
    assert ctf_of("x/a.mrc", trained)["defocus"] == 2
    assert ctf_of("x/b.rec", trained)["voltage"] == 200
    other = DenoiseConfig(defocus=3)
    assert ctf_of("c.mrc", trained, other)["defocus"] == 3
    both = table("tomogram,defocus", "x/a.mrc,2", "y/a.mrc,3", name="both.csv")
    assert ctf_of("y/a.mrc", trained, DenoiseConfig(ctf=both))["defocus"] == 3
    own = table("tomogram,phase_shift", "c,90", name="own.csv")
    found = ctf_of("c.mrc", trained, DenoiseConfig(defocus=3, ctf=own))
    assert (found["defocus"], found["phase_shift"], found["voltage"]) == (3, 90, 200)
    with pytest.raises(UserError, match="own.csv has no defocus of c; expected one in µm"):
        ctf_of("c.mrc", trained, DenoiseConfig(ctf=own))
    with pytest.raises(UserError, match="--defocus is 0; expected the tomograms' defocus, or"):
        DenoiseConfig().for_model(trained)
    with pytest.raises(UserError, match="--ctf is .*; expected none, since the model was trained"):
        DenoiseConfig(ctf=path).for_model(TrainConfig())


def test_half_maps_have_the_ctf_of_their_tomogram(table):
    path = table("tomogram,defocus", "a,2", "b,4")
    trained = TrainConfig(deconvolve=True, ctf=path)
    own = DenoiseConfig(
        tomograms=("a.mrc", "b.mrc"), half_maps=("o1.mrc", "e1.mrc", "o2.mrc", "e2.mrc"), ctf=path
    )
    assert [ctf_of(name, trained, own)["defocus"] for name in own.half_maps] == [2, 2, 4, 4]
    with pytest.raises(UserError, match="has no rows for o1"):  # the halves alone
        ctf_of("e1.mrc", trained, DenoiseConfig(half_maps=("o1.mrc", "e1.mrc"), ctf=path))


@pytest.mark.reliability(
    "a file of CTFs with a wrong column, unit, number or row", "one sentence that names the row"
)
@pytest.mark.parametrize(
    ("lines", "words"),
    [
        (["name,defocus", "a,2"], "has the column name; expected the column tomogram"),
        (["tomogram", "a"], "has the columns tomogram; expected the column tomogram and some of"),
        (["tomogram,defocus"], "has no rows"),
        (["tomogram,defocus", "a,30000"], "a: --defocus is 30000.0; expected at most 100 .*µm"),
        (["tomogram,defocus", "a,two"], "line 2: could not convert"),
        (["tomogram,defocus", "a,2", "a,3"], "2 rows for a; expected one"),
        (["tomogram,defocus", "b,2"], "has no rows for a; expected one for every tomogram"),
        (["tomogram,defocus", "x/a.mrc,2", "y/a.mrc,3"], "has 2 rows for a; expected one"),
        (["tomogram,defocus", "a,"], "has no defocus of a"),
        (["tomogram,defocus", "a,2,3"], "has the column None"),
    ],
)
def test_bad_tables_are_refused_by_name(table, lines, words):
    path = table(*lines)
    with pytest.raises(UserError, match=f"ctf.csv.*{words}"):
        ctf_of("a.mrc", TrainConfig(deconvolve=True, ctf=path))


def test_a_file_that_is_no_text_is_refused(tmp_path):
    path = tmp_path / "ctf.csv"
    path.write_bytes(bytes(range(256)))
    with pytest.raises(UserError, match="cannot read the CTFs .*ctf.csv: it is no CSV file"):
        read_table(str(path))
    with pytest.raises(UserError, match="cannot read the CTFs .*missing.csv: No such file"):
        read_table(str(tmp_path / "missing.csv"))


def test_star_files_of_relion(tmp_path, monkeypatch):
    """The median over a tilt series' images, of the mean of both defoci, in µm."""
    pytest.importorskip("starfile")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tilts").mkdir()
    (tmp_path / "tilts/TS_1.star").write_text(
        "data_TS_1\n\nloop_\n_rlnDefocusU #1\n_rlnDefocusV #2\n_rlnPhaseShift #3\n"
        "30000 31000 10\n32000 33000 20\n90000 90000 80\n",
        encoding="utf-8",
    )
    path = tmp_path / "tomograms.star"
    path.write_text(
        "data_global\n\nloop_\n_rlnTomoName #1\n_rlnVoltage #2\n_rlnSphericalAberration #3\n"
        "_rlnAmplitudeContrast #4\n_rlnTomoTiltSeriesStarFile #5\n"
        "_rlnTomoReconstructedTomogram #6\n"
        "TS_1 200 2.0 0.1 tilts/TS_1.star rec/rec_TS_1.mrc\n",
        encoding="utf-8",
    )
    assert ctf_of("rec/rec_TS_1.mrc", TrainConfig(deconvolve=True, ctf=str(path))) == {
        "defocus": pytest.approx(3.25),
        "phase_shift": 20,
        "voltage": 200,
        "spherical_aberration": 2,
        "amplitude_contrast": 0.1,
    }
    (tmp_path / "tilts/TS_1.star").write_text(
        "data_TS_1\n\nloop_\n_rlnTomoYTilt #1\n3\n4\n", encoding="utf-8"
    )
    with pytest.raises(UserError, match="TS_1.star has no columns rlnDefocusU and rlnDefocusV"):
        read_table(str(path))
