"""Model files are other people's: what they say is looked at before it is used."""

import contextlib
import io
import os
import pathlib
import pickle
import resource
import struct
import zipfile
import zlib

import pytest
import torch
from conftest import data
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from f2fd_core import DenoiseConfig, TrainConfig, denoise, train
from f2fd_core.cli import main
from f2fd_core.config import UserError
from f2fd_core.data import mrc
from f2fd_core.network import checkpoint, unet
from f2fd_core.runtime import train_log

MODELS = pathlib.Path(__file__).parents[1] / "models"
RELEASES = sorted(path.name.split("_")[0] for path in MODELS.glob("*_model.pt"))
CASES = int(os.environ.get("F2FD_TEST_CASES", 1000)) // 10
CONFIG = TrainConfig(features=1)
HUGE = 10**12
LONG = 10**6


@pytest.fixture
def good():
    """What a genuine file holds."""
    torch.manual_seed(0)
    return dict(
        format="f2fd",
        version=checkpoint.VERSION,
        config=CONFIG.to_dict(),
        step=7,
        voxel_size=10.0,
        model=unet.build(CONFIG).state_dict(),
    )


class Code:
    """Unpickling it would make a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (self.path,)


class Memory:
    """Unpickling it would take a GB."""

    def __reduce__(self):
        return bytearray, (10**9,)


def content(state):
    stream = io.BytesIO()
    torch.save(state, stream)
    return stream.getvalue()


def rewritten(state, method=zipfile.ZIP_STORED, more=None, change=lambda part: part):
    """The same archive as Python writes it, with ``more`` entries, each through ``change``."""
    stream = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(content(state))) as archive, zipfile.ZipFile(
        stream, "w", method
    ) as copy:
        for name in archive.namelist():
            copy.writestr(name, change(archive.read(name)))
        for entry in (more or {}).items():
            copy.writestr(*entry)
    return stream.getvalue()


def compressed(state):
    """The same archive with zeros that unpack to a hundred times the file's size."""
    return rewritten(state, zipfile.ZIP_DEFLATED, {"archive/data/bomb": bytes(10**8)})


def two_directories(good):
    """An archive in which Python finds a good model, and PyTorch one with 10 MB of zeros, packed.

    PyTorch follows the locator of a directory of 64 bits, which Python takes for a comment.
    """
    packed = rewritten(dict(good, more=torch.zeros(25 * 10**5)), zipfile.ZIP_DEFLATED)[:-22]
    directory = packed.index(b"PK\1\2")
    count = packed.count(b"PK\1\2")
    end = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(packed) - directory, directory
    )
    stored = io.BytesIO(rewritten(dict(good, more=torch.zeros(1))))
    with zipfile.ZipFile(stored, "a") as archive:
        archive.infolist()[-1].comment = struct.pack("<4sLQL", b"PK\6\7", 0, len(packed), 1)
        archive._didModify = True
    return packed + end + stored.getvalue()


def overlapping(good):
    """An archive with 100 entries more, each of which holds the next one."""
    stream, entries = io.BytesIO(content(good)), []
    inner = bytes(10**6)
    for number in range(100):
        entry = zipfile.ZipInfo(f"archive/data/more{number}")
        entry.file_size = entry.compress_size = len(inner)
        entry.CRC = zlib.crc32(inner)
        inner = entry.FileHeader() + inner
        entry.header_offset = -len(inner)
        entries.append(entry)
    with zipfile.ZipFile(stream, "a") as archive:
        stream.seek(archive.start_dir)
        stream.write(inner)
        archive.start_dir = stream.tell()
        for entry in entries:
            entry.header_offset += archive.start_dir
        archive.filelist += entries
        archive._didModify = True
    return stream.getvalue()


def deep(good, name):
    """A file in which the value of this name is a list in a list, and so on."""
    return rewritten(
        dict(good, **{name: "here"}),
        change=lambda part: part.replace(b"X\x04\0\0\0here", b"]" * 10**4 + b"a" * (10**4 - 1)),
    )


def older_form(state):
    stream = io.BytesIO()
    torch.save(state, stream, _use_new_zipfile_serialization=False)
    return stream.getvalue()


def crafted(kind, good, folder):
    """(content of a file that is not what it should be, words of the sentence about it)."""
    name = "last.3.bias"
    config, weights = good["config"], good["model"]
    changed = {
        "code among the settings": lambda: dict(good, config=dict(config, output=Code(folder))),
        "code instead of weights": lambda: dict(good, model=Code(folder)),
        "code beside it all": lambda: dict(good, more=Code(folder)),
        "list": lambda: [good],
        "number": lambda: 3,
        "other program's": lambda: {"state_dict": weights},
        "no version": lambda: {key: good[key] for key in good if key != "version"},
        "newer version": lambda: dict(good, version=checkpoint.VERSION + 1),
        "odd version": lambda: dict(good, version="x" * 1000),
        "no settings": lambda: dict(good, config=None),
        "unknown setting": lambda: dict(good, config=dict(config, tentacles=8)),
        "setting out of bounds": lambda: dict(good, config=dict(config, dropout=7.0)),
        "setting of another kind": lambda: dict(good, config=dict(config, features="eight")),
        "huge network": lambda: dict(good, config=dict(config, features=HUGE)),
        "large network": lambda: dict(good, config=dict(config, features=20000)),
        "other network": lambda: dict(
            good, config=dict(config, network="published", patch_size=32)
        ),
        "no step": lambda: dict(good, step=None),
        "negative step": lambda: dict(good, step=-1),
        "NaN voxel size": lambda: dict(good, voxel_size=float("nan")),
        "no voxel size": lambda: dict(good, voxel_size=0.0),
        "text for a voxel size": lambda: dict(good, voxel_size="10"),
        "no weights": lambda: dict(good, model=None),
        "a weight too few": lambda: dict(
            good, model={key: weights[key] for key in weights if key != name}
        ),
        "a weight too many": lambda: dict(good, model=dict(weights, more=torch.zeros(3))),
        "weight of another shape": lambda: dict(good, model={**weights, name: torch.zeros(2)}),
        "number for a weight": lambda: dict(good, model={**weights, name: 3.0}),
        "whole numbers": lambda: dict(
            good, model={**weights, name: torch.zeros(1, dtype=torch.int64)}
        ),
        "NaN weight": lambda: dict(good, model={**weights, name: torch.full((1,), float("nan"))}),
        "infinite weight": lambda: dict(
            good, model={**weights, name: torch.full((1,), float("inf"))}
        ),
        "weight of stride 0": lambda: dict(
            good,
            config=dict(config, features=20000),
            model={**weights, name: torch.zeros(1).expand(HUGE)},
        ),
        "names that are no texts": lambda: dict(good, model={3: torch.zeros(3)}),
        "one array under many names": lambda: dict(
            good, model=dict.fromkeys(map(str, range(1000)), torch.zeros(1000))
        ),
        "bytearray": lambda: dict(good, more=Memory()),
        "nested weights": lambda: dict(
            good,
            model={**weights, name: torch.nested.nested_tensor([torch.zeros(1), torch.zeros(2)])},
        ),
        "weights without content": lambda: dict(
            good, model={**weights, name: torch.zeros(1, device="meta")}
        ),
        "tensor for a version": lambda: dict(good, version=torch.zeros(2)),
        "huge step": lambda: dict(good, step=10**500),
        "long step": lambda: dict(good, step="x" * LONG),
        "long name": lambda: dict(good, model={"x" * LONG: 3.0}),
        "long name of a weight": lambda: dict(good, model={**weights, "x" * LONG: torch.zeros(1)}),
        "long setting": lambda: dict(good, config=dict(config, **{"x" * LONG: 3})),
        "long value": lambda: dict(good, config=dict(config, loss="x" * LONG)),
    }
    if kind in changed:
        return content(changed[kind]())
    return {
        "cut": lambda: content(good)[:-200],
        "empty": lambda: b"",
        "text": lambda: b"no model",
        "bare pickle": lambda: pickle.dumps(Code(folder)),
        "compressed": lambda: compressed(good),
        "two directories": lambda: two_directories(good),
        "overlapping entries": lambda: overlapping(good),
        "deep version": lambda: deep(good, "version"),
        "deep step": lambda: deep(good, "step"),
        "deep voxel size": lambda: deep(good, "voxel_size"),
        "older form": lambda: older_form(good),
        "older form with code": lambda: older_form(dict(good, more=Code(folder))),
        "zeros": lambda: bytes(5000),
    }[kind]()


NO_MODEL = [
    "code among the settings",
    "code instead of weights",
    "code beside it all",
    "list",
    "number",
    "other program's",
    "cut",
    "empty",
    "text",
    "bare pickle",
    "compressed",
    "older form",
    "older form with code",
    "zeros",
    "overlapping entries",
    "bytearray",
    "nested weights",
    "weights without content",
]
VERSIONS = ["no version", "newer version", "odd version", "tensor for a version", "deep version"]
DAMAGED = [
    "no settings",
    "unknown setting",
    "setting out of bounds",
    "setting of another kind",
    "huge network",
    "large network",
    "other network",
    "no step",
    "negative step",
    "NaN voxel size",
    "no voxel size",
    "text for a voxel size",
    "no weights",
    "a weight too few",
    "a weight too many",
    "weight of another shape",
    "number for a weight",
    "whole numbers",
    "NaN weight",
    "infinite weight",
    "weight of stride 0",
    "names that are no texts",
    "one array under many names",
    "deep step",
    "deep voxel size",
    "huge step",
    "long step",
    "long name",
    "long name of a weight",
    "long setting",
    "long value",
]


@pytest.mark.slow
@pytest.mark.reliability(
    "crafted model files: code, huge networks, overlapping entries, NaN weights, "
    "other versions and the like",
    "one sentence; no code runs, no memory is taken",
)
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", NO_MODEL + VERSIONS + DAMAGED)
def test_a_crafted_file_is_refused(kind, good, small, tmp_path, capsys):
    ran = tmp_path / "ran"
    path = tmp_path / "bad.pt"
    path.write_bytes(crafted(kind, good, str(ran)))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert main(["denoise", str(path), small["tomogram"], "--output", str(tmp_path / "out")]) == 2
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    (sentence,) = capsys.readouterr().err.splitlines()
    words = (
        "is not an F2Fd model"
        if kind in NO_MODEL
        else "has format version"
        if kind in VERSIONS
        else "is damaged: "
    )
    assert sentence.startswith(f"f2fd: error: {path} {words}")
    assert len(sentence) < 400
    assert not ran.exists() and not (tmp_path / "out").exists()
    assert grown < 200 << 10  # KiB


def test_what_is_crafted_is_otherwise_good(good, tmp_path):
    path = str(tmp_path / "good.pt")
    (tmp_path / "good.pt").write_bytes(content(good))
    network, config = checkpoint.restore(checkpoint.load(path), path)
    assert config == CONFIG
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, good["model"][name])


def test_of_two_directories_the_checked_one_is_read(good, tmp_path):
    path = tmp_path / "two.pt"
    path.write_bytes(two_directories(good))
    with contextlib.suppress(UserError):  # newer versions of Python refuse it
        assert checkpoint.load(str(path))["more"].numel() == 1


@pytest.mark.reliability(
    "model files with bytes changed at random", "one sentence, or what is read is what was written"
)
@pytest.mark.parametrize("digest", [True, False])
def test_spoilt_bytes(digest, good, tmp_path, record_property):
    path = tmp_path / "spoilt.pt"
    if digest:
        checkpoint.save(str(path), good["model"], CONFIG, good["step"], good["voxel_size"])
    genuine = path.read_bytes() if digest else (MODELS / (f"{RELEASES[-1]}_model.pt")).read_bytes()
    path.write_bytes(genuine)
    written, refused = checkpoint.load(str(path)), [0]

    @settings(
        max_examples=CASES // 2,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        st.lists(
            st.tuples(st.integers(0, len(genuine) - 1), st.integers(0, 255)),
            min_size=1,
            max_size=20,
        )
    )
    def check(changes):
        spoilt = bytearray(genuine)
        for place, value in changes:
            spoilt[place] = value
        path.write_bytes(spoilt)
        try:
            state = checkpoint.load(str(path))
        except UserError as error:
            refused[0] += 1
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert all(
                torch.equal(weight, written["model"][name])
                for name, weight in state.pop("model").items()
            )
            assert state == {name: written[name] for name in state}

    check()
    assert refused[0] > CASES / 20
    record_property("times", CASES // 2)


def test_a_file_that_was_changed_as_a_whole_is_refused(good, tmp_path):
    """The archive's checksums are right: only the digest shows it."""
    path = tmp_path / "model.pt"
    checkpoint.save(str(path), good["model"], CONFIG, good["step"], good["voxel_size"])
    with zipfile.ZipFile(path) as archive:
        entries = {name: archive.read(name) for name in archive.namelist()}
        digest = archive.comment
    name = next(name for name in entries if name.endswith("data/0"))
    entries[name] = entries[name][:-1] + b"?"
    with zipfile.ZipFile(path, "w") as archive:
        for entry in entries.items():
            archive.writestr(*entry)
        archive.comment = digest
    with pytest.raises(UserError, match="model.pt is damaged: its content is not what was written"):
        checkpoint.load(str(path))


@pytest.mark.slow
@pytest.mark.reliability("a damaged checkpoint, resumed from", "one sentence; nothing is changed")
@pytest.mark.parametrize(
    "part", ["optimizer", "schedule", "network", "best", "noise", "shapes", "scales", "setbacks"]
)
def test_a_damaged_checkpoint_is_not_resumed(part, small, tmp_path, capsys):
    options = [
        "--patch-size",
        "16",
        "--batch-size",
        "1",
        "--features",
        "1",
        "--refine-every",
        "1",
        "--checkpoint-every",
        "2",
        "--spectrum-window",
        "16",
    ]
    command = ["train", small["tomogram"], "--output", str(tmp_path), "--resume", *options]
    assert main([*command, "--steps", "2"]) == 0
    path = checkpoint.path_of(str(tmp_path / "checkpoints"), 2)
    state = torch.load(path, weights_only=True)
    state[part] = {
        "optimizer": {},
        "schedule": {"losses": 3},
        "best": None,
        "shapes": "x" * LONG,
        "network": {"a": 1},
        "noise": [{"x": 1}],
        "scales": [7],
        "setbacks": "x",
    }[part]
    torch.save(state, path)
    before = {entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if entry.is_file()}
    capsys.readouterr()
    assert main([*command, "--steps", "4"]) == 2
    sentences = [line for line in capsys.readouterr().err.splitlines() if "error" in line]
    assert len(sentences) == 1 and "step_00000002.pt" in sentences[0] and len(sentences[0]) < 500
    assert before == {
        entry.name: entry.read_bytes() for entry in tmp_path.iterdir() if entry.is_file()
    }


@pytest.mark.slow
@pytest.mark.reliability(
    "a damaged log.csv, resumed from", "one sentence that names the line; nothing is changed"
)
def test_a_damaged_log_is_not_resumed(small, tmp_path, capsys):
    command = [
        "train",
        small["tomogram"],
        "--output",
        str(tmp_path),
        "--resume",
        "--patch-size",
        "16",
        "--batch-size",
        "1",
        "--features",
        "1",
        "--spectrum-window",
        "16",
        "--steps",
    ]
    assert main([*command, "2"]) == 0
    log = tmp_path / "log.csv"
    heading, first, second = log.read_bytes().splitlines(keepends=True)
    for line in (
        first[:9] + b"\0" + first[9:],
        b"\xff" + first,
        b"1,2\n",
        first[:-2] + b",7,7\r\n",
        b"1" * 200000 + b"\n",
        first.replace(b",", b";"),
    ):
        log.write_bytes(heading + line + second)
        with pytest.raises(UserError, match="log.csv is damaged in line 2; expected the log of a"):
            train_log.read_log(str(log))
    log.write_bytes(heading.replace(b"loss", b"lass") + first)
    with pytest.raises(UserError, match="log.csv is damaged in line 1"):
        train_log.read_log(str(log))
    spoilt = heading + b'"' + first + second
    log.write_bytes(spoilt)
    capsys.readouterr()
    assert main([*command, "3"]) == 2
    assert f"f2fd: error: {log} is damaged in line 2" in capsys.readouterr().err.splitlines()[-1]
    assert log.read_bytes() == spoilt
    log.unlink()
    assert main([*command, "3"]) == 0
    assert [row["step"] for row in train_log.read_log(str(log))] == ["2"]


@pytest.mark.slow
@pytest.mark.reliability(
    "models and checkpoints of released versions",
    "they denoise; those of the present format are resumed from",
)
@pytest.mark.parametrize("release", RELEASES)
@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_files_of_released_versions_are_used(release, kind, small, tmp_path):
    path = str(MODELS / (f"{release}_{kind}.pt"))
    state = checkpoint.load(path)
    network, config = checkpoint.restore(state, path)
    assert (config.features, config.patch_size, state["voxel_size"]) == (1, 16, 10.0)
    assert state["step"] == {"model": 6, "checkpoint": 3}[kind]
    stored = torch.load(path, weights_only=True)["model"]
    for name, weight in network.state_dict().items():
        assert torch.equal(weight, stored[name])
    (result,) = denoise(
        DenoiseConfig(
            model=path, tomograms=(small["tomogram"],), output=str(tmp_path), predictions=2
        )
    )
    assert data(result).std() > 0


def test_a_training_of_the_present_format_goes_on(small, tmp_path):
    """Also from a checkpoint that does not tell by what its tomogram is known again."""
    path = MODELS / (f"{RELEASES[-1]}_checkpoint.pt")
    state = checkpoint.load(str(path))
    shape = tuple(state["shapes"][0])
    tomogram = data(small["tomogram"])[tuple(slice(side) for side in shape)]
    assert tomogram.shape == shape
    mrc.write_volume(str(tmp_path / "part.mrc"), tomogram, 10.0)
    (tmp_path / "run" / "checkpoints").mkdir(parents=True)
    (tmp_path / "run" / "checkpoints" / "step_00000003.pt").write_bytes(path.read_bytes())
    recorded = dict(
        TrainConfig.create({}, state["config"]).to_dict(),
        resume=True,
        device="cpu",
        tomograms=[str(tmp_path / "part.mrc")],
        output=str(tmp_path / "run"),
    )
    model = train(TrainConfig.create(recorded))
    assert checkpoint.load(model)["step"] == 6


def test_every_format_has_its_files():
    """A new format, or a new release, needs files of it in tests/models."""
    formats = {torch.load(path, weights_only=True)["version"] for path in MODELS.glob("*.pt")}
    assert formats == set(range(1, checkpoint.VERSION + 1))
