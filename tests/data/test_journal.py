import os
import shutil
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serl_suite.data.episodes import read_dataset
from serl_suite.data.journal import Journal, RunInUse
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SPEC = EnvSpec(
    task="T",
    observation={"state": ArraySpec(shape=(3,), dtype="float32")},
    action=ArraySpec(shape=(1,), dtype="float32", low=-1.0, high=1.0),
)


def make_step(seq, length, *, ended=True):
    """Step `seq` of a session whose episodes have `length` transitions."""
    episode, index = divmod(seq, length + 1)
    return Step(
        seq=seq,
        episode=episode,
        index=index,
        observation={"state": np.array([seq, episode, index], np.float32)},
        action=np.array([0.5], np.float32) if index else None,
        reward=0.1 * seq,
        truncated=ended and index == length,
    )


def contents(journal):
    return [(session, step.seq, step.observation["state"].tolist()) for session, step in journal.recover()]


def expected(rows):
    return [
        (session, seq, [float(seq), *map(float, divmod(seq, length + 1))]) for session, seq, length in rows
    ]


interleavings = st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=60)


@settings(max_examples=40, deadline=None)
@given(interleavings, st.data())
def test_what_was_received_comes_back_in_the_order_received(tmp_path_factory, order, data):
    """Across sessions, archiving at any time, reopening at any time."""
    run = tmp_path_factory.mktemp("run")
    journal, counts, rows = Journal(run), {"a": 0, "b": 0, "c": 0}, []
    lengths = {"a": 3, "b": 5, "c": 1}
    for session in order:
        step = make_step(counts[session], lengths[session], ended=session != "c")
        assert journal.append(session, SPEC, step) == len(rows)
        rows.append((session, counts[session], lengths[session]))
        counts[session] += 1
        match data.draw(st.sampled_from(["", "", "archive", "reopen", "finish"])):
            case "archive":
                journal.archive()
            case "reopen":
                journal.close()
                journal = Journal(run)
            case "finish":
                journal.finish(session)
        assert journal.received == len(rows)
    assert contents(journal) == expected(rows)
    assert {s: journal.last_seq(s) for s in counts} == {s: n - 1 for s, n in counts.items()}
    journal.close()
    shutil.rmtree(run)


def test_a_run_folder_is_a_dataset(tmp_path):
    journal = Journal(tmp_path)
    for seq in range(8):
        journal.append("s", SPEC, make_step(seq, 3))
    journal.archive()
    episodes = read_dataset(tmp_path / "episodes")
    assert [len(e) for e in episodes] == [3, 3]
    assert not list((tmp_path / "journal").rglob("*.wal"))
    journal.close()


def test_an_episode_cut_off_is_closed_by_the_next(tmp_path):
    journal = Journal(tmp_path)
    journal.append("s", SPEC, make_step(0, 3))
    journal.append("s", SPEC, make_step(1, 3))
    first_of_next = make_step(4, 3)
    journal.append("s", SPEC, Step(seq=2, episode=1, index=0, observation=first_of_next.observation))
    assert [path.name for path in journal.archive()] == ["000000.parquet"]
    journal.finish("s")
    journal.close()
    assert [len(e) for e in read_dataset(tmp_path)] == [1, 0]


@pytest.mark.parametrize("archived", [False, True])
def test_a_finished_episode_that_goes_on_is_one_episode(tmp_path, archived):
    """Its actor was away for longer than the run, and a later learner takes the rest."""
    journal = Journal(tmp_path)
    for seq in range(3):
        journal.append("s", SPEC, make_step(seq, 5))
    journal.finish("s")
    if archived:
        journal.close()
        assert [(len(e), e.steps[-1].ends_episode) for e in read_dataset(tmp_path)] == [(2, False)]
        assert not list(tmp_path.rglob("*.wal"))
        journal = Journal(tmp_path)
    for seq in range(3, 6):
        journal.append("s", SPEC, make_step(seq, 5))
    assert contents(journal) == expected([("s", seq, 5) for seq in range(6)])
    journal.close()
    assert [(len(e), e.steps[-1].ends_episode) for e in read_dataset(tmp_path)] == [(5, True)]
    assert not list(tmp_path.rglob("*.wal"))


@pytest.mark.parametrize("call", ["os.fdatasync", "pathlib.Path.unlink"])
def test_dying_while_an_episode_is_opened_again_loses_and_doubles_nothing(tmp_path, monkeypatch, call):
    journal = Journal(tmp_path)
    for seq in range(3):
        journal.append("s", SPEC, make_step(seq, 5))
    journal.finish("s")
    journal.archive()

    def die(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr(call, die)
    with pytest.raises(KeyboardInterrupt):
        journal.append("s", SPEC, make_step(3, 5))
    monkeypatch.undo()
    os.close(journal._lock_fd)
    journal = Journal(tmp_path)
    assert contents(journal) == expected([("s", seq, 5) for seq in range(3)])
    for seq in range(3, 6):
        journal.append("s", SPEC, make_step(seq, 5))
    journal.close()
    assert [len(e) for e in read_dataset(tmp_path)] == [5]


def test_cut_at_every_byte_nothing_synced_before_is_lost_and_nothing_comes_twice(tmp_path):
    run = tmp_path / "run"
    journal, ends = Journal(run), []
    wal = run / "journal" / "s" / "000000.wal"
    for seq in range(5):
        journal.append("s", SPEC, make_step(seq, 9))
        journal.sync()
        ends.append(wal.stat().st_size)
    data = wal.read_bytes()
    journal.close()
    for cut in sorted(
        {*range(0, len(data) + 1, 9), *(end + d for end in ends for d in (-1, 0, 1))} - {len(data) + 1}
    ):
        wal.parent.mkdir(exist_ok=True)
        wal.write_bytes(data[:cut])
        journal = Journal(run)
        whole = sum(cut >= end for end in ends)
        assert journal.last_seq("s") == whole - 1
        for seq in range(whole, 5):  # the actor sends again what was not acknowledged
            journal.append("s", SPEC, make_step(seq, 9))
        assert contents(journal) == expected([("s", seq, 9) for seq in range(5)])
        journal.close()


def test_a_later_episode_without_the_end_of_the_one_before_does_not_count(tmp_path):
    """A machine's death may keep the second file and lose the tail of the first: neither was acknowledged."""
    journal = Journal(tmp_path)
    for seq in range(6):
        journal.append("s", SPEC, make_step(seq, 3))
    journal.sync()
    os.close(journal._lock_fd)  # dies here: nothing archived
    wal = tmp_path / "journal" / "s" / "000000.wal"
    wal.write_bytes(wal.read_bytes()[:-1])
    journal = Journal(tmp_path)
    assert journal.last_seq("s") == 2
    assert contents(journal) == expected([("s", seq, 3) for seq in range(3)])
    journal.close()


def test_dying_between_archiving_and_forgetting_duplicates_nothing(tmp_path):
    journal = Journal(tmp_path)
    for seq in range(4):
        journal.append("s", SPEC, make_step(seq, 3))
    journal.sync()
    wal = tmp_path / "journal" / "s" / "000000.wal"
    data = wal.read_bytes()
    journal.archive()
    journal.close()
    wal.write_bytes(data)
    (tmp_path / "episodes" / "s" / "000001.tmp").write_bytes(b"half")
    journal = Journal(tmp_path)
    assert contents(journal) == expected([("s", seq, 3) for seq in range(4)])
    assert not wal.exists()
    assert not list(tmp_path.rglob("*.tmp"))
    journal.close()


def test_a_killed_process_loses_nothing_that_it_synced(tmp_path):
    script = """
        import sys
        from pathlib import Path
        sys.path.insert(0, sys.argv[2])
        from test_journal import SPEC, Journal, make_step
        journal = Journal(Path(sys.argv[1]))
        seq = journal.last_seq("s") + 1
        while True:
            journal.append("s", SPEC, make_step(seq, 7))
            if seq % 5 == 0:
                journal.sync()
                print(seq, flush=True)
            if seq % 13 == 0:
                journal.archive()
            seq += 1
    """
    synced = -1
    for kill_at in (40, 97, 160):
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(script), str(tmp_path), os.path.dirname(__file__)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for line in process.stdout:
            synced = int(line)
            if synced >= kill_at:
                process.send_signal(signal.SIGKILL)
                break
        synced = max([synced, *map(int, process.stdout.read().split())])
        process.wait()
        journal = Journal(tmp_path)
        assert journal.last_seq("s") >= synced
        assert contents(journal) == expected([("s", seq, 7) for seq in range(journal.last_seq("s") + 1)])
        journal.close()


def test_one_process_at_a_time(tmp_path):
    journal = Journal(tmp_path)
    with pytest.raises(RunInUse, match="another run folder"):
        Journal(tmp_path)
    journal.close()
    Journal(tmp_path).close()


def test_only_the_next_step_is_taken(tmp_path):
    journal = Journal(tmp_path)
    journal.append("s", SPEC, make_step(0, 3))
    for seq in (0, 2):
        with pytest.raises(ValueError, match="came after 0"):
            journal.append("s", SPEC, make_step(seq, 3))
    journal.close()
