import contextlib
import csv
import os
import signal
import subprocess
import sys

import pytest
import torch
from conftest import TINY, data, fork

from f2fd_core import TrainConfig, UserError, train
from f2fd_core.commands import train as training
from f2fd_core.config import PRETRAINED
from f2fd_core.network import checkpoint
from f2fd_core.runtime import distributed
from f2fd_core.runtime.device import cpu_threads
from f2fd_core.runtime.distributed import Group

# Slow steps: what differs in the last bits grows with the way that the weights go.
OPTIONS = dict(
    TINY,
    batch_size=4,
    seed=3,
    schedule="constant",
    learning_rate=1e-3,
    precision="float32",
    threads=1,
)


ENDED = pytest.mark.reliability(
    "one of two training processes killed", "the other is ended; one sentence"
)


def losses(folder):
    with open(folder / "log.csv", newline="") as stream:
        return [float(row["loss"]) for row in csv.DictReader(stream)]


def run(small, output, **options):
    """Train as in OPTIONS but for ``options``."""
    train(
        TrainConfig(**dict(OPTIONS, tomograms=(small["tomogram"],), output=str(output), **options))
    )


@pytest.fixture(scope="module")
def one_and_two(small, tmp_path_factory):
    """Folders of the same training by one process and by two."""
    folders = [tmp_path_factory.mktemp("devices") for _ in range(2)]
    with pytest.MonkeyPatch.context() as patch:
        fork(patch)
        for folder, device in zip(folders, ("cpu", "cpu,cpu")):
            run(small, folder, device=device)
    return folders


@pytest.mark.slow
def test_one_and_two_processes_learn_the_same(one_and_two):
    """The same patches with the same noise: only the order of the sums differs."""
    one, two = one_and_two
    assert losses(two) == pytest.approx(losses(one), rel=1e-4)
    models = [checkpoint.load(str(folder / "model.pt"))["model"] for folder in one_and_two]
    for name, weights in models[0].items():
        torch.testing.assert_close(models[1][name], weights, rtol=0, atol=1e-4)


@pytest.mark.slow
def test_processes_agree_on_the_contrast(phantom, write, tmp_path, forked):
    """Where matter is bright, all invert the network that has learned from dark matter."""
    bright = {"tomogram": write(-data(phantom["tomogram"]))}
    for name, device in (("one", "cpu"), ("two", "cpu,cpu")):
        run(bright, tmp_path / name, device=device, features=0, steps=2, start="shapes")
    assert losses(tmp_path / "two") == pytest.approx(losses(tmp_path / "one"), rel=1e-4)
    before = checkpoint.load(PRETRAINED)["model"]["last.3.weight"]
    after = checkpoint.load(str(tmp_path / "two" / "model.pt"))["model"]["last.3.weight"]
    torch.testing.assert_close(after, -before, rtol=0.3, atol=1e-3)


@pytest.mark.slow
def test_two_processes_resume(one_and_two, small, tmp_path, forked):
    """From a checkpoint that one process wrote, two go on to the same losses."""
    run(small, tmp_path, steps=3)
    run(small, tmp_path, device="cpu,cpu", resume=True)
    assert losses(tmp_path) == pytest.approx(losses(one_and_two[0]), rel=1e-4)


@pytest.mark.slow
def test_torchrun_gives_the_same(one_and_two, small, tmp_path):
    options = [
        word
        for name, value in dict(OPTIONS, device="cpu").items()
        for word in ("--" + name.replace("_", "-"), str(value))
    ]
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--standalone",
            "--nproc-per-node",
            "2",
            "-m",
            "f2fd_core",
            "train",
            small["tomogram"],
            "--output",
            str(tmp_path / "run"),
            *options,
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert losses(tmp_path / "run") == pytest.approx(losses(one_and_two[1]), rel=1e-6)


def test_a_patch_for_every_process(small, tmp_path):
    with pytest.raises(UserError, match="--batch-size is 2; expected at least 3"):
        run(small, tmp_path / "run", device="cpu,cpu,cpu", batch_size=2)
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_bad_input_is_reported_in_one_sentence(one_and_two, small, forked):
    with pytest.raises(UserError, match="already holds a training"):
        run(small, one_and_two[0], device="cpu,cpu")


def _dies(number):
    if int(os.environ["RANK"]) == number:
        os.kill(os.getpid(), signal.SIGKILL)
    with distributed.joined(False) as group:
        group.broadcast(None)  # waits for the other, in vain


def _has_no_room(number):
    with distributed.joined(False) as group:
        if group.rank == number:
            raise OSError("cannot write model.pt: No space left on device")
        group.broadcast(None)  # waits for the other, in vain


def _names_what_it_does_not_hear(_):
    raise UserError(
        " ".join(sorted(number.name for number in signal.pthread_sigmask(signal.SIG_BLOCK, ())))
    )


@pytest.mark.slow
def test_signals_to_all_processes_are_the_first_ones_affair():
    """It ends the others, which would end by themselves otherwise, as would Python's tracker."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(UserError, match="SIGHUP.*SIGUSR1"):
        distributed.start(_names_what_it_does_not_hear, None, 1)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before


def _disagrees(_):
    raise UserError(f"process {os.environ['RANK']} says no")


@ENDED
def test_a_process_that_dies_ends_the_others(forked):
    with pytest.raises(UserError, match="process 2 of 2 ended with signal SIGKILL"):
        distributed.start(_dies, 1, 2)


@ENDED
@pytest.mark.parametrize("number", [0, 1])
def test_what_the_system_refuses_a_process_is_said(number, forked):
    with pytest.raises(OSError, match="^cannot write model.pt: No space left on device$"):
        distributed.start(_has_no_room, number, 2)


def test_after_an_error_no_process_waits_for_the_others(monkeypatch):
    """NCCL would, to end the connection; the others wait for this process."""
    monkeypatch.setattr(distributed, "from_environment", lambda _: (Group(0, 2), "a:1"))
    ended = []
    monkeypatch.setattr(distributed.dist, "init_process_group", lambda *_, **options: None)
    monkeypatch.setattr(distributed.dist, "destroy_process_group", lambda: ended.append(True))
    with pytest.raises(UserError, match="no room"), distributed.joined(True):
        raise UserError("no room")
    assert not ended
    with distributed.joined(True):
        pass
    assert ended


def test_processes_that_others_started_need_no_patch_for_every_device(small, tmp_path, monkeypatch):
    """Those of two processes on a machine with eight GPUs count, not the GPUs."""

    @contextlib.contextmanager
    def joined(_):
        yield Group(0, 2)

    found = []
    monkeypatch.setattr(training.distributed, "joined", joined)
    monkeypatch.setattr(training, "_train_in", lambda group, *_: found.append(group.size))
    run(small, tmp_path / "run", device=",".join(8 * ["cpu"]), batch_size=2)
    assert found == [2]


def test_what_a_process_refuses_is_said(forked):
    with pytest.raises(UserError, match="process [01] says no"):
        distributed.start(_disagrees, None, 2)


def _reports_its_threads(_):
    raise UserError(f"{cpu_threads()} threads")


def test_processes_share_the_threads_of_the_cpu(monkeypatch, forked):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    available = cpu_threads()
    with pytest.raises(UserError, match=f"^{max(1, available // 2)} threads$"):
        distributed.start(_reports_its_threads, None, 2)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    with pytest.raises(UserError, match=f"^{min(2, available)} threads$"):
        distributed.start(_reports_its_threads, None, 2)


@pytest.mark.parametrize(
    ("variables", "expected", "address"),
    [
        ({}, (0, 1, 0), ""),
        (
            dict(RANK="3", WORLD_SIZE="4", LOCAL_RANK="1", MASTER_ADDR="a", MASTER_PORT="7"),
            (3, 4, 1),
            "a:7",
        ),
        (
            dict(
                SLURM_PROCID="2",
                SLURM_STEP_NUM_TASKS="4",
                SLURM_LOCALID="0",
                SLURM_JOB_ID="100007",
                SLURM_STEP_NODELIST="gpu[03-04,9]",
            ),
            (2, 4, 0),
            "gpu03:20007",
        ),
        (
            dict(
                SLURM_PROCID="0",
                SLURM_STEP_NUM_TASKS="2",
                SLURM_LOCALID="0",
                SLURM_JOB_ID="7",
                SLURM_STEP_ID="3",
                SLURM_STEP_NODELIST="a",
            ),
            (0, 2, 0),
            "a:20073",
        ),
        # In a batch script, without srun.
        (dict(SLURM_PROCID="0", SLURM_NTASKS="4", SLURM_JOB_ID="7"), (0, 1, 0), ""),
    ],
)
def test_groups_of_torchrun_and_slurm(variables, expected, address):
    group, found = distributed.from_environment(variables)
    assert (group.rank, group.size, group.local_rank) == expected
    assert found == address


@pytest.mark.parametrize(
    ("nodes", "host"),
    [("a01", "a01"), ("a01,b02", "a01"), ("gpu[7,9]", "gpu7"), ("n-[001-014],x", "n-001")],
)
def test_first_host_of_a_node_list(nodes, host):
    assert distributed.first_host(nodes) == host


def test_patches_are_shared_without_rest_or_overlap():
    shares = [distributed.Group(rank, 3).shard("abcdefg") for rank in range(3)]
    assert sorted(sum(shares, [])) == list(enumerate("abcdefg"))
    assert max(map(len, shares)) - min(map(len, shares)) <= 1
