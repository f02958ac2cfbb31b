import errno
import mmap
import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

from serl_suite.wire.codec import Codec
from serl_suite.wire.messages import Hello, Step
from serl_suite.wire.records import RecordFile, pack, record_size, scan
from serl_suite.wire.segments import Segment
from serl_suite.wire.spaces import ArraySpec, EnvSpec
from serl_suite.wire.spool import Spool, SpoolError

SPEC = EnvSpec(
    task="T",
    observation={"state": ArraySpec(shape=(700,), dtype="float64")},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)
HELLO = Hello(session_id="abc", actor="test", spec=SPEC)


def encoded(seq):
    step = Step(seq=seq, episode=0, index=seq, observation={"state": np.full(700, seq, np.float64)})
    return Codec().encode_step(step)


def value(spool, seq):
    (step,) = Codec().decode_records(spool.read(seq, 0, 1).data)
    return step.seq, step.observation["state"][0]


def test_records_up_to_every_byte_of_a_torn_tail(tmp_path):
    records = [[b"first", b""], [b"x" * 5000, b"second"], [b"third"]]
    whole = [pack(parts) for parts in records]
    data = b"".join(whole)
    ends = np.cumsum([len(r) for r in whole])
    for cut in [*range(0, len(data), 37), *range(len(data) - 40, len(data) + 1)]:
        found = [[bytes(p) for p in r.parts] for r in scan(data[:cut])]
        assert found == records[: int(np.searchsorted(ends, cut, side="right"))]


@pytest.mark.parametrize("where", [0, 5, 9, 40, 2000, 5020])
def test_a_flipped_byte_ends_the_records_there(where):
    good, bad = pack([b"good"]), pack([b"x" * 5000, b"tail"])
    bad[where] ^= 1
    assert [bytes(r.parts[0]) for r in scan(good + bad + good)] == [b"good"]


def test_acknowledged_steps_are_forgotten_and_the_rest_read_back(tmp_path):
    spool = Spool.create(tmp_path, HELLO, segment_bytes=20_000)
    for seq in range(50):
        spool.append(seq, encoded(seq))
    spool.acknowledge(29)
    spool.acknowledge(10)
    assert (spool.first_seq, spool.next_seq) == (30, 50)
    assert [value(spool, seq) for seq in range(30, 50)] == [(seq, seq) for seq in range(30, 50)]
    spool.close(delete=False)


def test_the_disk_space_stays_bounded_however_many_steps_pass(tmp_path):
    spool = Spool.create(tmp_path, HELLO, segment_bytes=20_000)
    for seq in range(600):
        spool.append(seq, encoded(seq))
        spool.acknowledge(seq - 5)
    assert sum(path.stat().st_size for path in spool.folder.iterdir()) < 5 * 20_000
    assert value(spool, 597) == (597, 597)
    spool.close(delete=False)


def test_what_a_dead_actor_left_is_found_once_and_removed_when_done(tmp_path):
    spool = Spool.create(tmp_path, HELLO, segment_bytes=20_000)
    for seq in range(30):
        spool.append(seq, encoded(seq))
        spool.acknowledge(seq - 7)  # segments are written over meanwhile
    spool.belongs_to("run-7")
    assert Spool.pending(tmp_path) == []  # its actor lives
    spool.close(delete=False)
    (again,) = Spool.pending(tmp_path)
    assert (again.hello, again.run_id, again.next_seq) == (HELLO, "run-7", 30)
    assert again.first_seq <= 23
    assert [value(again, seq) for seq in range(23, 30)] == [(seq, seq) for seq in range(23, 30)]
    assert Spool.pending(tmp_path) == []
    again.acknowledge(29)
    again.close(delete=True)
    assert not again.folder.exists()


def test_a_session_cut_at_every_byte_keeps_every_whole_step(tmp_path):
    spool = Spool.create(tmp_path, HELLO)
    lengths = []
    for seq in range(3):
        spool.append(seq, encoded(seq))
        lengths.append(record_size([bytes(8), *encoded(seq).parts]))
    spool.close(delete=False)
    ends = np.cumsum(lengths)
    data = (spool.folder / "steps-000000000000.log").read_bytes()[: ends[-1]]
    for cut in [*range(ends[0], len(data), 331), *range(ends[1] - 3, ends[1] + 4), len(data) - 1, len(data)]:
        (spool.folder / "steps-000000000000.log").write_bytes(data[:cut])
        (again,) = Spool.pending(tmp_path)
        assert again.next_seq == sum(cut >= end for end in ends)
        again.close(delete=False)


def test_a_killed_process_loses_no_step_whose_append_returned(tmp_path):
    script = """
        import sys, numpy as np
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_spool import HELLO, Spool, encoded
        spool = Spool.create(Path(sys.argv[1]), HELLO, segment_bytes=50_000)
        seq = 0
        while True:
            spool.append(seq, encoded(seq))
            print(seq, flush=True)
            seq += 1
    """
    here = os.path.dirname(__file__)
    process = subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), here],
        stdout=subprocess.PIPE,
        text=True,
    )
    for line in process.stdout:
        if int(line) >= 300:
            process.send_signal(signal.SIGKILL)
            break
    rest = process.stdout.read().split()
    promised = int(rest[-1]) if rest else 300
    process.wait()
    (spool,) = Spool.pending(tmp_path)
    assert promised <= spool.next_seq - 1 <= promised + 1
    assert value(spool, promised) == (promised, promised)
    spool.close(delete=True)


def test_a_full_disk_takes_nothing_and_loses_nothing(tmp_path):
    script = """
        import resource, sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_spool import HELLO, Spool, encoded
        from serl_suite.wire.records import DiskFull
        spool = Spool.create(Path(sys.argv[1]), HELLO, segment_bytes=20_000)
        seq = 0
        try:
            while True:
                if seq == 2:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
                spool.append(seq, encoded(seq))
                seq += 1
        except DiskFull as e:
            print(e)
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        for seq in range(seq, 10):
            spool.append(seq, encoded(seq))
    """
    output = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), os.path.dirname(__file__)],
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    assert "cannot reserve 20000 bytes" in output
    assert "free space" in output
    (spool,) = Spool.pending(tmp_path)
    assert [value(spool, seq) for seq in range(10)] == [(seq, seq) for seq in range(10)]
    spool.close(delete=True)


def test_errors_name_the_cause(tmp_path):
    spool = Spool.create(tmp_path, HELLO)
    with pytest.raises(SpoolError, match="already"):
        Spool.create(tmp_path, HELLO)
    with pytest.raises(ValueError, match="step 3 was put where step 0 is due"):
        spool.append(3, encoded(3))
    spool.append(0, encoded(0))
    (spool.folder / "steps-000000000000.log").write_bytes(bytes(10_000))
    with pytest.raises(SpoolError, match="damaged"):
        spool.check(0, spool.read(0, 0, 1))
    spool.close(delete=True)


def test_leftovers_of_an_actor_that_died_at_its_start_are_removed(tmp_path):
    (tmp_path / "half").mkdir()
    file = RecordFile(tmp_path / "half" / "session.log")
    file.append(pack([b"H"])[:1])
    file.close()
    assert Spool.pending(tmp_path) == []
    assert not (tmp_path / "half").exists()


def test_a_segment_that_cannot_be_opened_stays(tmp_path, monkeypatch):
    Spool.create(tmp_path, HELLO, segment_bytes=20_000).append(0, encoded(0))
    (path,) = tmp_path.glob("abc/steps-*.log")
    before = path.read_bytes()

    def no_memory(fd, size):
        raise OSError(errno.ENOMEM, "Cannot allocate memory")

    monkeypatch.setattr(mmap, "mmap", no_memory)
    with pytest.raises(OSError, match="Cannot allocate"):
        Segment(path)
    assert path.read_bytes() == before
