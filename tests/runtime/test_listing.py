"""Which files a user means: folders, patterns, lists, STAR files, and half-maps by their names."""

import os
import pathlib
import threading

import pytest

from f2fd_core import UserError, cli
from f2fd_core.runtime import listing, lock, star
from f2fd_core.runtime.files import stem

NAMES = {
    "AreTomo": ("TS_1_Vol.mrc", "TS_1_ODD_Vol.mrc", "TS_1_EVN_Vol.mrc"),
    "WarpTools": ("TS_1_10.00Apx.mrc", "odd/TS_1_10.00Apx.mrc", "even/TS_1_10.00Apx.mrc"),
    "RELION": ("rec_TS_1.mrc", "rec_TS_1_half1.mrc", "rec_TS_1_half2.mrc"),
    "IMOD": ("TS_1_rec.mrc", "TS_1_rec_ODD.mrc", "TS_1_rec_EVN.mrc"),
    "cryoCARE, in the name": ("TS-1.rec", "TS-1.odd.rec", "TS-1.even.rec"),
    "cryoCARE, in the folder": ("full/TS_1.mrc", "odd/TS_1.mrc", "even/TS_1.mrc"),
}


@pytest.fixture
def files(tmp_path, monkeypatch):
    """Empty files in the present folder, by their names."""
    monkeypatch.chdir(tmp_path)

    def make(*names):
        for name in names:
            os.makedirs(os.path.dirname(name) or ".", exist_ok=True)
            (tmp_path / name).touch()

    return make


def test_words_for_tomograms(files):
    files(
        "a.mrc", "b.mrc", "b_denoised.mrc", "b_ODD.mrc", "notes.md", ".c.mrc", "x[1].mrc", "d.rec"
    )
    assert listing.tomograms(["b.mrc", "a.mrc", "b.mrc"]) == ["b.mrc", "a.mrc"]
    assert listing.tomograms(["."]) == ["./a.mrc", "./b.mrc", "./d.rec", "./x[1].mrc"]
    assert listing.tomograms(["[ab].mrc", "d.*"]) == ["a.mrc", "b.mrc", "d.rec"]
    # A file of that very name is no pattern, and a name that is not there is left to who opens it.
    names = ["x[1].mrc", "gone.mrc", "gone[2].mrc"]
    assert listing.tomograms(names) == names
    with pytest.raises(UserError, match=r"no file matches z\*\.mrc"):
        listing.tomograms(["z*.mrc"])
    os.mkdir("empty")
    with pytest.raises(UserError, match="empty holds no tomogram; expected files ending with .mrc"):
        listing.tomograms(["empty"])


def test_lists_with_any_line_ends_and_comments(files, tmp_path):
    files("set/a.mrc", "set/more/b.mrc", "set/more/c.mrc", "d.mrc")
    (tmp_path / "set/list.txt").write_bytes(
        b"\xef\xbb\xbf# the good ones\r\na.mrc  # thin\r\n\r\nmore/*.mrc\r\nd.mrc\r\n"
    )
    assert listing.tomograms(["set/list.txt"]) == [
        "set/a.mrc",
        "set/more/b.mrc",
        "set/more/c.mrc",
        "d.mrc",
    ]
    (tmp_path / "bad.txt").write_text("d.mrc\ne.mrc\n")
    with pytest.raises(UserError, match="bad.txt names e.mrc in line 2, which does not exist"):
        listing.tomograms(["bad.txt"])
    (tmp_path / "none.txt").write_text("# nothing\n")
    with pytest.raises(UserError, match="none.txt names no tomogram"):
        listing.tomograms(["none.txt"])
    (tmp_path / "self.txt").write_text("self.txt\n")
    with pytest.raises(UserError, match="self.txt names itself in line 1"):
        listing.tomograms(["self.txt"])


@pytest.mark.parametrize("names", NAMES.values(), ids=NAMES)
def test_half_maps_by_the_names_of_other_programs(names, files):
    """Also among those of another tomogram, whose name begins alike."""
    files(*names, *(name.replace("1", "12", 1) for name in names))
    found = listing.found_for([names[0]], ["auto"])
    assert [os.path.normpath(path) for path in found.half_maps] == list(names[1:])
    assert found.said == [f"half-maps of {names[0]}: {found.half_maps[0]} and {found.half_maps[1]}"]


def test_doubtful_half_maps_are_an_error(files):
    files("TS_1.mrc", "TS_1_ODD.mrc", "TS_1_EVN.mrc", "TS_1_odd.mrc")
    with pytest.raises(UserError, match="TS_1_ODD.mrc and TS_1_odd.mrc could be the odd half-map"):
        listing.half_maps(["TS_1.mrc"])
    files("TS_2.mrc", "TS_2_ODD.mrc")
    with pytest.raises(
        UserError, match="no file could be the even half-map of TS_2.mrc; expected "
    ):
        listing.half_maps(["TS_2.mrc"])
    with pytest.raises(UserError, match="--half-maps is auto without tomograms"):
        listing.found_for([], ["auto"])
    # Two marks in one name mean nothing.
    assert listing.mark_of("odd_even.mrc") == "" and listing.mark_of("goodness.mrc") == ""


GLOBAL = """# version 50001

data_global

loop_
_rlnTomoName #1
_rlnVoltage #2
_rlnTomoTiltSeriesStarFile #3
{columns}
{rows}

"""


def written(path, columns, rows):
    lines = "\n".join(f"_{name} #{number}" for number, name in enumerate(columns, 4))
    body = "\n".join(
        f"TS_{number} 300.000000 Tomograms/job1/tilt_series/TS_{number}.star {' '.join(row)}"
        for number, row in enumerate(rows, 1)
    )
    path.write_text(GLOBAL.format(columns=lines, rows=body))


def test_star_files_are_given_back_with_the_results(files, tmp_path):
    """The whole file, whose other columns are as they were; paths are relative to the project."""
    starfile = pytest.importorskip("starfile")
    names = [f"Tomograms/job1/tomograms/rec_TS_{number}.mrc" for number in (1, 2)]
    halves = [[name.replace(".mrc", f"_half{half}.mrc") for half in (1, 2)] for name in names]
    files(*names, *sum(halves, []))
    path = tmp_path / "Tomograms/job1/tomograms.star"
    written(
        path,
        [star.TOMOGRAM_COLUMN, *star.HALF_COLUMNS],
        [[name, *pair] for name, pair in zip(names, halves)],
    )
    word = str(path.relative_to(tmp_path))
    found = listing.found_for([word], ["auto"])
    assert (found.tomograms, found.half_maps, found.stars) == (names, sum(halves, []), [word])
    results = {name: f"out/{stem(name)}_denoised.mrc" for name in names}
    files(results[names[0]])
    assert star.write_results(word, results, "new.star") == (1, 2)
    before, after = (starfile.read(name) for name in (word, "new.star"))
    assert list(after.columns) == [*before.columns, star.RESULT]
    assert list(after[star.RESULT]) == ["out/rec_TS_1_denoised.mrc", "None"]
    assert (after[before.columns] == before).all().all()
    with open("new.star", encoding="utf-8") as stream:
        assert "data_global" in stream.read()
    # From within the job's folder, too.
    os.chdir(tmp_path / "Tomograms/job1")
    assert [
        os.path.samefile(tmp_path / name, path)
        for name, path in zip(names, listing.tomograms(["tomograms.star"]))
    ] == [True, True]


def test_star_files_have_the_results_that_came_while_another_task_wrote(files):
    """Whoever writes last looks last: the file never has fewer results than there are."""
    starfile = pytest.importorskip("starfile")
    names = ["rec_TS_1.mrc", "rec_TS_2.mrc"]
    results = {name: f"{stem(name)}_denoised.mrc" for name in names}
    files(*names, results[names[0]])
    written(pathlib.Path("tomograms.star"), [star.TOMOGRAM_COLUMN], [[name] for name in names])
    found = []
    waiting = threading.Thread(
        target=lambda: found.append(star.write_results("tomograms.star", results, "new.star"))
    )
    with lock.held("new.star"):
        waiting.start()
        waiting.join(0.5)
        assert waiting.is_alive() and not os.path.exists("new.star")
        files(results[names[1]])
    waiting.join()
    assert found == [(2, 2)]
    assert list(starfile.read("new.star")[star.RESULT]) == list(results.values())


def test_star_files_with_half_maps_only(files, tmp_path):
    """As RELION writes them for denoising: the half-maps are taken, if they are asked for."""
    pytest.importorskip("starfile")
    pair = ["rec_TS_1_half1.mrc", "rec_TS_1_half2.mrc"]
    files(*pair)
    written(tmp_path / "tomograms.star", star.HALF_COLUMNS, [pair])
    found = listing.found_for(["tomograms.star"], ["auto"])
    assert (found.tomograms, found.half_maps) == ([], pair)
    with pytest.raises(UserError, match="expected one, or --half-maps auto for the half-maps"):
        listing.tomograms(["tomograms.star"])
    written(tmp_path / "other.star", ["rlnMicrographName"], [["a.mrc"]])
    with pytest.raises(UserError, match="other.star has no column rlnTomoReconstructedTomogram"):
        listing.tomograms(["other.star"])


def test_words_on_the_command_line(files, capsys):
    files("a.mrc", "a_ODD.mrc", "a_EVN.mrc", "b.mrc", "b_ODD.mrc", "b_EVN.mrc")
    settings, _ = cli.parse(["train", ".", "--half-maps", "auto", "--output", "out"])
    assert settings.tomograms == ("./a.mrc", "./b.mrc")
    assert settings.half_maps == ("./a_ODD.mrc", "./a_EVN.mrc", "./b_ODD.mrc", "./b_EVN.mrc")
    assert "half-maps of ./a.mrc: ./a_ODD.mrc and ./a_EVN.mrc" in capsys.readouterr().err
    settings, _ = cli.parse(["denoise", "pretrained", "*.mrc", "--output", "out"])
    assert settings.model.endswith("pretrained.pt") and os.path.exists(settings.model)
    assert len(settings.tomograms) == 6
