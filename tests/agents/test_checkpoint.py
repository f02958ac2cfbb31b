"""Checkpoints on a real disk: damaged, old, interrupted and full."""

import json
import signal
import struct
import subprocess
import sys
import time

import pytest
import torch

from serl_suite.agents.rlpd import RLPD
from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.data.checkpoint import BadCheckpoint, load_checkpoint, save_checkpoint
from serl_suite.wire.spaces import ArraySpec, EnvSpec

TENSORS = {
    "a": torch.arange(6.0).view(2, 3),
    "steps": torch.tensor(12345678901),
    "bytes": torch.arange(9).to(torch.uint8),
}
META = {"counters": {"env_steps": 3}, "rng": '{"state": 340282366920938463463374607431768211455}'}


def test_everything_comes_back(tmp_path):
    path = tmp_path / "checkpoints" / "c.safetensors"
    save_checkpoint(path, {**TENSORS, "transposed": TENSORS["a"].T}, META)
    tensors, meta = load_checkpoint(path)
    assert meta == META
    assert tensors.keys() == TENSORS.keys() | {"transposed"}
    for name, tensor in TENSORS.items():
        assert tensors[name].dtype == tensor.dtype
        assert torch.equal(tensors[name], tensor)
    assert torch.equal(tensors["transposed"], TENSORS["a"].T)
    assert [p.name for p in path.parent.iterdir()] == [path.name], "no temporary file is left"


def test_a_truncated_file_is_damaged_wherever_it_ends(tmp_path):
    path = tmp_path / "c"
    save_checkpoint(path, TENSORS, META)
    data = path.read_bytes()
    for length in [*range(0, len(data), 7), len(data) - 1]:
        path.write_bytes(data[:length])
        with pytest.raises(BadCheckpoint, match=r"damaged.*older checkpoint"):
            load_checkpoint(path)


def test_absent_foreign_and_other_versions_are_told_apart(tmp_path):
    with pytest.raises(BadCheckpoint, match="no checkpoint at"):
        load_checkpoint(tmp_path / "c")

    def write(metadata):
        header = json.dumps({"__metadata__": metadata}).encode()
        (tmp_path / "c").write_bytes(struct.pack("<Q", len(header)) + header)

    write({"by": "somebody else"})
    with pytest.raises(BadCheckpoint, match="no checkpoint of serl_suite"):
        load_checkpoint(tmp_path / "c")
    write({"serl_suite": '{"version": 99, "meta": {}}'})
    with pytest.raises(BadCheckpoint, match=r"version 99, this serl_suite reads 1; use the version"):
        load_checkpoint(tmp_path / "c")
    write({"serl_suite": '{"version": '})
    with pytest.raises(BadCheckpoint, match="damaged"):
        load_checkpoint(tmp_path / "c")


def test_a_full_disk_keeps_the_checkpoint_before(tmp_path):
    """The kernel refuses to let the file grow (RLIMIT_FSIZE), in a process of its own."""
    path = tmp_path / "c"
    save_checkpoint(path, TENSORS, META)
    script = f"""
import resource, signal, torch
from pathlib import Path
from serl_suite.data.checkpoint import save_checkpoint
from serl_suite.wire.records import DiskFull
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, 1 << 16))
try:
    save_checkpoint(Path({str(path)!r}), {{"big": torch.zeros(1 << 20)}}, {{}})
except DiskFull as e:
    print(e)
"""
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert "cannot write" in out
    assert "free space" in out
    assert load_checkpoint(path)[1] == META
    assert [p.name for p in tmp_path.iterdir()] == ["c"]


def test_killed_at_any_moment_there_is_a_whole_checkpoint(tmp_path):
    path = tmp_path / "c"
    script = f"""
import torch
from pathlib import Path
from serl_suite.data.checkpoint import save_checkpoint
print("ready", flush=True)
n = 0
while True:
    n += 1
    save_checkpoint(Path({str(path)!r}), {{"x": torch.full((200_000,), float(n))}}, {{"n": n}})
"""
    for delay in (0.03, 0.05, 0.08):
        process = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
        process.stdout.readline()
        while not path.exists():
            time.sleep(0.005)
        time.sleep(delay)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        tensors, meta = load_checkpoint(path)
        assert (tensors["x"] == meta["n"]).all()


def test_a_full_size_agent_is_saved_within_100_ms(tmp_path):
    """Ten critics of 256 x 256: the most that a state run writes. The best of five, for the disk is shared."""
    spec = EnvSpec(
        task="t",
        observation={"s": ArraySpec(shape=(40,), dtype="float32")},
        action=ArraySpec(shape=(7,), dtype="float32", low=-1.0, high=1.0),
    )
    agent, stalls = RLPD(RLPDConfig(num_critics=10), spec, seed=0), []
    for _ in range(5):
        start = time.perf_counter()
        save_checkpoint(tmp_path / "c", agent.state_dict(), META)
        stalls.append(time.perf_counter() - start)
    assert min(stalls) < 0.1
