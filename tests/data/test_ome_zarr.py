"""OME-Zarr images beside MRC files: the same voxels, voxel size, place and results."""

import dataclasses
import json
import os
import shutil
import sys
import tracemalloc

import numpy as np
import pytest
from conftest import TINY, data

from f2fd_core import DenoiseConfig, TrainConfig, UserError, cli, denoise, train
from f2fd_core.commands.evaluate import evaluate
from f2fd_core.config import EvaluateConfig
from f2fd_core.data import formats, mrc, ome_metadata, ome_zarr
from f2fd_core.data.volume import Volume
from f2fd_core.runtime import files, listing

zarr = pytest.importorskip("zarr")
VALUES = np.random.default_rng(0).normal(5, 2, (40, 50, 61)).astype(np.float32)


BAD_IMAGE = pytest.mark.reliability(
    "OME-Zarr images with wrong metadata, other types, damaged chunks or NaN", "one sentence"
)


@pytest.fixture
def image(tmp_path):
    """Write an image; returns its path."""

    def to_folder(values=VALUES, name="x.zarr", voxel_size=13.48, chunks=(16, 32, 32), **more):
        path = str(tmp_path / name)
        with formats.new_volume(
            path, shape=values.shape, voxel_size=(voxel_size,) * 3, chunks=chunks, **more
        ) as output:
            output[:] = values
        return path

    return to_folder


def metadata(path):
    """What is in .zattrs."""
    with open(os.path.join(path, ".zattrs"), encoding="utf-8") as stream:
        return json.load(stream)


def rewrite(path, change):
    """Change what is in .zattrs: ``change(attributes)`` in place."""
    attributes = metadata(path)
    change(attributes)
    with open(os.path.join(path, ".zattrs"), "w", encoding="utf-8") as stream:
        json.dump(attributes, stream)


def chunk_file(path, *number):
    return os.path.join(path, "0", *map(str, number))


def test_what_is_written_is_read_again(image):
    """Voxels, voxel size and place, and as zarr itself reads them: OME-Zarr 0.4, in Å."""
    path = image(origin=(1.0, 20.0, 300.0), labels=[b"aligned"], done="denoised", made_of="model=1")
    source = formats.open_volume(path)
    np.testing.assert_array_equal(source[:], VALUES)
    assert source.shape == VALUES.shape and source.size == VALUES.size
    assert source.voxel_size == (13.48,) * 3 and source.origin == (1, 20, 300)
    assert source.labels[0] == b"aligned" and source.made_of == "F2Fd model=1"
    assert not source.original and source.doubts() == []
    group = zarr.open_group(path, mode="r")
    np.testing.assert_array_equal(group["0"][:], VALUES)
    assert group["0"].chunks == (16, 32, 32) and group["0"].dtype == np.float32
    (described,) = metadata(path)["multiscales"]
    assert described["version"] == "0.4"
    assert [axis["name"] for axis in described["axes"]] == ["z", "y", "x"]
    assert {axis["unit"] for axis in described["axes"]} == {"angstrom"}


def test_the_pyramid_is_of_means_where_they_belong(image):
    path = image(origin=(1.0, 20.0, 300.0))
    group, (described,) = zarr.open_group(path, mode="r"), metadata(path)["multiscales"]
    places = np.arange(40) * 13.48 + 300
    for number, level in enumerate(described["datasets"]):
        scale, translation = level["coordinateTransformations"]
        side = 2**number
        cut = VALUES[: 40 // side * side, : 50 // side * side, : 61 // side * side]
        if number == 2:  # 25 sections bin to 12
            cut = VALUES[:40, :48, :60]
        blocks = cut.reshape(cut.shape[0] // side, side, cut.shape[1] // side, side, -1, side)
        np.testing.assert_allclose(group[level["path"]][:], blocks.mean((1, 3, 5)), rtol=1e-5)
        assert scale["scale"] == [13.48 * side] * 3
        # The middle of a binned voxel is that of those it was made of.
        assert translation["translation"][0] == pytest.approx(places[:side].mean())
    assert len(described["datasets"]) == 3


@pytest.mark.parametrize(
    "index",
    [
        (slice(None),),
        (slice(3, 9), Ellipsis, 5),
        (20,),
        (slice(None), 49),
        (slice(15, 17), slice(31, 33), slice(60, 61)),
        (Ellipsis, slice(np.int64(1), np.int64(40))),
        (-1, slice(-3, None)),
        (slice(5, 5),),
    ],
)
def test_indexing_is_numpys(image, index):
    source = formats.open_volume(image())
    np.testing.assert_array_equal(source[index], VALUES[index])


def test_a_region_reads_no_other_chunks(image):
    """All others are broken, and nobody notices."""
    path = image()
    kept = chunk_file(path, 1, 0, 1)
    for name in files.files_in(os.path.join(path, "0")):
        if not os.path.basename(name).startswith(".z") and name != kept:
            with open(name, "wb") as stream:
                stream.write(b"broken")
    source = formats.open_volume(path)
    np.testing.assert_array_equal(source[16:32, 5:30, 32:61], VALUES[16:32, 5:30, 32:61])
    with pytest.raises(UserError, match="x.zarr has a chunk that can't be read, of the voxels"):
        source[15:32, 5:30, 32:61]


class Counting:
    """A Zarr array that counts what is read of it."""

    def __init__(self, array):
        self.array, self.chunks, self.shape, self.dtype = (
            array,
            array.chunks,
            array.shape,
            array.dtype,
        )
        self.count = 0

    def __getitem__(self, index):
        self.count += 1
        return self.array[index]


def test_neighbouring_regions_read_a_chunk_once(image, monkeypatch):
    source = formats.open_volume(image())
    source = dataclasses.replace(source, array=Counting(source.array))
    for start in range(0, 16, 4):
        source[start : start + 4, :20, :20]
    assert source.array.count == 1
    monkeypatch.setattr(ome_zarr, "KEPT_BYTES", 0)
    source[20, 40, 40]
    source[20, 40, 40]
    assert source.array.count == 3


@pytest.mark.slow
def test_a_tomogram_is_never_in_memory(image, monkeypatch):
    """To read, standardise and write one takes a few chunks and slabs of it."""
    values = np.random.default_rng(1).normal(size=(160, 128, 128)).astype(np.float32)
    path = image(values, chunks=(8, 32, 32))
    chunk = 8 * 32 * 32 * 4
    monkeypatch.setattr(ome_zarr, "KEPT_BYTES", 16 * chunk)
    monkeypatch.setattr("f2fd_core.data.source.SLAB_VOXELS", 8 * 128 * 128)
    total = values.nbytes
    del values
    tracemalloc.start()
    source = formats.open_volume(path)
    for slab in range(0, 160, 8):
        source[slab : slab + 8]
    with formats.new_volume(path.replace("x", "y"), **source.header()) as output:
        for slab in range(0, 160, 8):
            output[slab : slab + 8] = source[slab : slab + 8]
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < total / 3
    np.testing.assert_array_equal(formats.open_volume(path.replace("x", "y"))[7], source[7])


@pytest.fixture
def both(small, image, tmp_path):
    """The same tomogram as an MRC file and as an image: their paths."""
    path = str(tmp_path / "t.mrc")
    shutil.copy(small["tomogram"], path)
    return path, image(data(path), "t.zarr", 10.0)


def denoised(path, tiny_model, output, **more):
    (result,) = denoise(
        DenoiseConfig(
            model=str(tiny_model / "model.pt"),
            tomograms=(path,),
            output=str(output),
            device="cpu",
            tile_size=32,
            predictions=more.pop("predictions", 1),
            **more,
        )
    )
    return result


def test_denoising_gives_the_same_bits_as_of_an_mrc_file(both, tiny_model, tmp_path):
    one, other = (
        denoised(path, tiny_model, tmp_path / "out", std=True, predictions=2) for path in both
    )
    assert other == str(tmp_path / "out" / "t_denoised.zarr")
    for name in files.volumes_of(other, True):
        np.testing.assert_array_equal(
            formats.open_volume(name)[:], data(name.replace(".zarr", ".mrc"))
        )
    source = formats.open_volume(other)
    assert source.chunks == formats.open_volume(both[1]).chunks
    assert source.voxel_size == mrc.open_volume(one).voxel_size
    assert source.labels[:-1] == tuple(label.strip() for label in mrc.open_volume(one).labels[:-1])
    left = sorted(os.listdir(tmp_path / "out"))
    assert left == ["t_denoised.mrc", "t_denoised.zarr", "t_std.mrc", "t_std.zarr"]


def test_a_part_lies_where_it_lay(both, tiny_model, tmp_path):
    region = (4, 8, 6, 16, 20, 18)
    one, other = (
        formats.open_volume(denoised(path, tiny_model, tmp_path / "out", region=region))
        for path in both
    )
    np.testing.assert_array_equal(one[:], other[:])
    assert other.origin == one.origin == (60, 80, 40)


@pytest.mark.parametrize(("dtype", "step"), [("float16", 0.01), ("int8", 0.1)])
def test_smaller_types(both, tiny_model, tmp_path, dtype, step):
    """In the full resolution and in the pyramid."""
    whole = data(denoised(both[0], tiny_model, tmp_path / "whole"))
    path = denoised(both[1], tiny_model, tmp_path / "out", dtype=dtype)
    group, source = zarr.open_group(path, mode="r"), formats.open_volume(path)
    factor, offset = 1.0, 0.0
    if dtype == "int8":
        (words,) = [label for label in source.labels if b"value =" in label]
        _, _, _, offset, _, factor, *_ = words.decode().split()
    binned = whole.reshape(12, 2, 20, 2, 16, 2).mean((1, 3, 5))
    for level, expected in (("0", whole), ("1", binned)):
        assert group[level].dtype == dtype
        found = group[level][:].astype(np.float64) * float(factor) + float(offset)
        inside = np.abs(expected - whole.mean()) < 3 * whole.std()
        assert np.abs(found - expected)[inside].max() < step * whole.std()


def test_finished_ones_are_skipped_and_others_are_kept(both, image, tiny_model, tmp_path, capsys):
    out, path = tmp_path / "out", both[1]
    result = denoised(path, tiny_model, out)
    with pytest.raises(UserError, match=r"t_denoised.zarr exists already; it is kept"):
        denoised(path, tiny_model, out)
    before = os.stat(result).st_mtime_ns
    denoised(path, tiny_model, out, resume=True)
    assert os.stat(result).st_mtime_ns == before
    assert "t_denoised.zarr is finished: skipped" in capsys.readouterr().err
    with pytest.raises(UserError, match="was made of other settings"):
        denoised(path, tiny_model, out, resume=True, seed=1)
    image(formats.open_volume(path)[:] + 1, "t.zarr", 10.0)
    with pytest.raises(UserError, match="was made of another tomogram"):
        denoised(path, tiny_model, out, resume=True)
    denoised(path, tiny_model, out, overwrite=True)
    assert os.stat(result).st_mtime_ns != before
    assert sorted(os.listdir(out)) == ["t_denoised.zarr"]


def test_results_among_the_tomograms_are_left_out(both, tiny_model, tmp_path):
    result = denoised(both[1], tiny_model, tmp_path)
    assert listing.tomograms([str(tmp_path)]) == list(both)
    assert files.results_among([both[1], result]) == [result]
    assert listing.tomograms([both[1] + "/", str(tmp_path / "*.zarr")]) == [both[1], result]


@pytest.mark.reliability(
    "an error while an OME-Zarr result is replaced", "the earlier result as it was"
)
def test_what_ends_in_the_middle_leaves_what_was_there(image, tmp_path, monkeypatch):
    path = image()
    with pytest.raises(UserError, match="result for .*x.zarr holds NaN or infinite voxels"):
        image(np.where(VALUES[1, 2, 3] == VALUES, np.nan, VALUES))
    monkeypatch.setattr(ome_metadata, "described", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        image(VALUES + 1)
    assert os.listdir(tmp_path) == ["x.zarr"]
    np.testing.assert_array_equal(formats.open_volume(path)[:], VALUES)


@pytest.mark.reliability(
    "a process killed while it writes an OME-Zarr result", "no result; the next run takes its place"
)
def test_killed_in_the_middle(image, tmp_path):
    child = os.fork()
    if not child:
        with formats.new_volume(
            str(tmp_path / "x.zarr"), shape=VALUES.shape, voxel_size=(1, 1, 1)
        ) as output:
            output[:] = VALUES
            os.kill(os.getpid(), 9)
    os.waitpid(child, 0)
    assert os.listdir(tmp_path) == ["x.zarr.part"]
    with pytest.raises(UserError, match="holds no tomogram"):
        listing.tomograms([str(tmp_path)])
    image()
    assert os.listdir(tmp_path) == ["x.zarr"]


def axes(attributes):
    return attributes["multiscales"][0]["axes"]


def dataset(attributes):
    return attributes["multiscales"][0]["datasets"][0]


def in_nanometers(attributes):
    for axis in axes(attributes):
        axis["unit"] = "nanometer"


def steps_of_all(attributes):
    attributes["multiscales"][0]["coordinateTransformations"] = [
        {"type": "scale", "scale": [2, 2, 2]}
    ]


@pytest.mark.parametrize(
    ("change", "size"), [(in_nanometers, 134.8), (steps_of_all, 26.96), (lambda _: None, 13.48)]
)
def test_the_voxel_size_in_other_units_and_of_several_transformations(image, change, size):
    path = image()
    rewrite(path, change)
    np.testing.assert_allclose(formats.open_volume(path).voxel_size, size)
    assert formats.open_volume(path, 5.0).true_voxel_size == (5, 5, 5)


def test_axes_of_length_one(tmp_path):
    """A channel and a time, as some programs write them."""
    path = str(tmp_path / "x.zarr")
    more = {"zarr_format": 2} if ome_zarr.major(zarr) >= 3 else {}
    zarr.open_group(path, mode="w", **more)
    array = zarr.create(
        shape=(1, 1, *VALUES.shape),
        chunks=(1, 1, 8, 8, 64),
        dtype=">f4",
        store=path,
        path="s0",
        **more,
    )
    array[:] = VALUES[None, None]
    described = ome_metadata.described(path, ["s0"], (5.0,) * 3, (0.0,) * 3, [])
    axes(described)[:0] = [{"name": "t", "type": "time"}, {"name": "c", "type": "channel"}]
    dataset(described)["coordinateTransformations"][0]["scale"][:0] = [1, 1]
    with open(os.path.join(path, ".zattrs"), "w", encoding="utf-8") as stream:
        json.dump(described, stream)
    source = formats.open_volume(path)
    np.testing.assert_array_equal(source[:], VALUES)
    assert source.voxel_size == (5, 5, 5) and source.chunks == (8, 8, 64)


@pytest.mark.skipif(ome_zarr.major(zarr) < 3, reason="zarr 2 has no format 3")
def test_version_0_5(tmp_path):
    path = str(tmp_path / "x.zarr")
    group = zarr.open_group(path, mode="w", zarr_format=3)
    array = group.create_array("0", shape=VALUES.shape, chunks=(8, 16, 16), dtype="float32")
    array[:] = VALUES
    described = ome_metadata.described(path, ["0"], (5.0,) * 3, (0.0,) * 3, [])
    group.attrs.update({"ome": described})
    source = formats.open_volume(path)
    np.testing.assert_array_equal(source[:], VALUES)
    assert source.voxel_size == (5, 5, 5) and source.doubts() == []


@pytest.mark.skipif(ome_zarr.major(zarr) >= 3, reason="zarr 3 reads format 3")
@pytest.mark.reliability("OME-Zarr 0.5 with the package zarr 2", "one sentence")
def test_version_0_5_needs_zarr_3(tmp_path):
    (tmp_path / "x.zarr").mkdir()
    (tmp_path / "x.zarr" / "zarr.json").write_text("{}")
    with pytest.raises(UserError, match=r"has Zarr format 3 \(OME-Zarr 0.5\), which zarr 2.* does"):
        formats.open_volume(str(tmp_path / "x.zarr"))


def set_scale(*values):
    def change(attributes):
        dataset(attributes)["coordinateTransformations"] = [
            {"type": "scale", "scale": list(values)}
        ]

    return change


def set_unit(unit):
    def change(attributes):
        axes(attributes)[0]["unit"] = unit

    return change


BAD = {
    "no multiscales": (lambda it: it.pop("multiscales"), "has no multiscales"),
    "empty multiscales": (lambda it: it["multiscales"].clear(), "has no multiscales"),
    "axes x, y, z": (lambda it: axes(it).reverse(), r"has the axes \['x', 'y', 'z'\]; expected z"),
    "two axes": (lambda it: axes(it).pop(), "expected z, y, x as the last three"),
    "no scale": (lambda it: dataset(it).pop("coordinateTransformations"), "has no scale in its me"),
    "two scales": (set_scale(1, 2), r"has the scale \[1, 2\] in its metadata; expected 3 numbers"),
    "words as a scale": (set_scale("a", 1, 2), "has the scale .* expected 3 numbers"),
    "a scale of 0": (set_scale(0, 5, 5), "voxel size 5 x 5 x 0 Å in its metadata; expected 0.1"),
    "a scale of NaN": (set_scale(5, float("nan"), 5), "voxel size 5 x nan x 5 Å in its metadata"),
    "unknown unit": (set_unit("parsec"), "has the unit 'parsec' in its metadata, and so no voxel"),
    "unit of no text": (set_unit([3]), r"has the unit \[3\] in its metadata"),
    "no unit": (lambda it: axes(it)[0].pop("unit"), "has no unit in its metadata"),
    "another dataset": (lambda it: dataset(it).update(path="7"), "names the dataset 7 in its meta"),
    "a dataset elsewhere": (lambda it: dataset(it).update(path="../y"), "expected a path inside"),
    "a group as the dataset": (lambda it: dataset(it).update(path=""), "names the dataset "),
}


@BAD_IMAGE
@pytest.mark.parametrize("fault", BAD)
def test_bad_metadata(image, fault):
    change, words = BAD[fault]
    path = image()
    rewrite(path, change)
    with pytest.raises(UserError, match=words) as error:
        formats.open_volume(path)
    assert path in str(error.value) and "\n" not in str(error.value)
    if "--voxel-size" in str(error.value):
        assert formats.open_volume(path, 7.0).true_voxel_size == (7, 7, 7)


def set_array(path, **more):
    place = os.path.join(path, "0", ".zarray")
    with open(place, encoding="utf-8") as stream:
        described = dict(json.load(stream), **more)
    with open(place, "w", encoding="utf-8") as stream:
        json.dump(described, stream)


def cut(path):
    os.truncate(chunk_file(path, 0, 0, 1), 100)


def file_instead(path):
    shutil.rmtree(path)
    open(path, "w").close()


def no_group(path):
    os.remove(os.path.join(path, ".zgroup"))


def array_instead(path):
    shutil.move(os.path.join(path, "0"), path + ".0")
    shutil.rmtree(path)
    shutil.move(path + ".0", path)


def nan_fill(path):
    set_array(path, fill_value="NaN")
    os.remove(chunk_file(path, 0, 0, 0))


FAULTS = {
    "a file": (file_instead, "is a file; expected the folder of an OME-Zarr image"),
    "nothing": (shutil.rmtree, "does not exist; expected the folder of an OME-Zarr image"),
    "a single array": (array_instead, "is a single Zarr array; expected an OME-Zarr image"),
    "no group": (no_group, "is no Zarr group that can be read"),
    "complex voxels": (
        lambda path: set_array(path, dtype="<c8", fill_value=None),
        "complex64 voxels",
    ),
    "damaged JSON": (lambda path: os.truncate(os.path.join(path, "0", ".zarray"), 9), "can't be r"),
    "pickles": (lambda path: set_array(path, filters=[{"id": "pickle"}]), "compressed with pickle"),
    "a short chunk": (cut, r"has a chunk that can't be read, of the voxels from 0 x 0 x 32 on"),
    "NaN": (nan_fill, "holds 16384 NaN or infinite voxels in sections 0 to 39"),
    "other axes": (lambda path: set_array(path, shape=[40, 50], chunks=[40, 50]), "has the shape"),
}


@BAD_IMAGE
@pytest.mark.parametrize("fault", FAULTS)
def test_bad_images(image, fault):
    break_it, words = FAULTS[fault]
    path = image()
    break_it(path)
    with pytest.raises(UserError, match=words) as error:
        Volume(path)
    assert path in str(error.value) and "\n" not in str(error.value)


def test_missing_chunks_are_reported(image):
    """Zarr takes them for empty ones."""
    path = image()
    os.remove(chunk_file(path, 1, 1, 1))
    source = formats.open_volume(path)
    (doubt,) = source.doubts()
    assert "x.zarr lacks 1 of 12 chunks, whose voxels are taken as 0.0" in doubt
    assert not source[16:32, 32:, 32:].any()


@pytest.mark.reliability("an OME-Zarr image removed or replaced while it is read", "one sentence")
def test_an_image_that_changes_while_it_is_read(image):
    path = image()
    volume = Volume(path)
    volume.region((0, 0, 0), (8, 8, 8))
    image(VALUES * 3)
    with pytest.raises(UserError, match="x.zarr was overwritten while it was being read"):
        volume.region((0, 0, 0), (8, 8, 8))
    volume = Volume(path)
    shutil.rmtree(path)
    with pytest.raises(UserError, match="x.zarr was removed while it was being read"):
        volume.region((0, 0, 0), (8, 8, 8))


def test_without_the_package(image, monkeypatch):
    path = image()
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(UserError, match="x.zarr is an OME-Zarr image; expected the package zarr"):
        formats.open_volume(path)


def test_evaluate_takes_either(both):
    scores = evaluate(EvaluateConfig(denoised=both[1], reference=both[0]))
    assert scores["denoised"]["correlation"] == pytest.approx(1)


@pytest.mark.slow
def test_a_training_on_half_maps_in_images(small, image, tmp_path):
    """Odd and even beside the tomogram, found by their names."""
    values = data(small["tomogram"])
    noise = np.random.default_rng(2).normal(0, values.std(), values.shape)
    image(values, "a.zarr", 10.0)
    for name, sign in (("a_ODD.zarr", 1), ("a_EVN.zarr", -1)):
        image(values + sign * noise, name, 10.0)
    found = listing.found_for([str(tmp_path / "a.zarr")], ["auto"])
    model = train(
        TrainConfig(
            tomograms=tuple(found.tomograms),
            half_maps=tuple(found.half_maps),
            output=str(tmp_path / "run"),
            **TINY,
        )
    )
    assert os.path.exists(model)


def test_the_command_line_takes_a_folder_with_images(both, tiny_model, tmp_path):
    os.mkdir(tmp_path / "in")
    shutil.move(both[1], tmp_path / "in" / "t.zarr")
    words = [
        "denoise", tiny_model / "model.pt", tmp_path / "in", "--output", tmp_path / "out",
        "--predictions", 1, "--tile-size", 32, "--device", "cpu",
    ]  # fmt: skip
    assert cli.main(list(map(str, words))) == 0
    assert os.path.isdir(tmp_path / "out" / "t_denoised.zarr")
