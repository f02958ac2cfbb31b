import cv2
import msgspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from serl_suite.data.episodes import (
    CorruptEpisode,
    Episode,
    SpecMismatch,
    read_dataset,
    read_episode,
    read_info,
    write_episode,
)
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, BadStep, EnvSpec

SPEC = EnvSpec(
    task="T",
    observation={
        "wrist": ArraySpec(shape=(16, 12, 3), dtype="uint8", low=0.0, high=255.0),
        "depth": ArraySpec(shape=(4, 5), dtype="float16"),
        "tcp/pose": ArraySpec(shape=(6,), dtype="float32", low=(None, *[-1.0] * 5)),
        "closed": ArraySpec(shape=(1,), dtype="bool"),
        "nothing": ArraySpec(shape=(0,), dtype="float32"),
        "clock": ArraySpec(shape=(), dtype="float64"),
    },
    action=ArraySpec(shape=(3,), dtype="float32", low=-1.0, high=1.0),
    rate_hz=12.5,
)


def make_episode(rng, length, **changes):
    steps = [
        Step(
            seq=70 + t,
            episode=4,
            index=t,
            observation={
                "wrist": rng.integers(0, 256, (16, 12, 3), dtype=np.uint8),
                "depth": rng.normal(size=(4, 5)).astype(np.float16),
                "tcp/pose": rng.normal(size=6).astype(np.float32),
                "closed": rng.integers(0, 2, 1).astype(np.bool_),
                "nothing": np.zeros(0, np.float32),
                "clock": np.array(rng.normal()),
            },
            action=rng.uniform(-1, 1, 3).astype(np.float32) if t else None,
            reward=float(rng.normal()),
            terminated=t == length,
            success=[None, True, False][int(rng.integers(3))],
            source=["policy", "scripted", "human"][int(rng.integers(3))],
            intervention=bool(rng.integers(2)),
            policy_version=int(rng.integers(1000)),
            time_s=float(rng.normal()),
            frame_times_s={"wrist": float(rng.normal())} if rng.integers(2) else {},
        )
        for t in range(length + 1)
    ]
    fields = {"session_id": "s", "number": 4, "spec": SPEC, "steps": steps, "seed": 11}
    return Episode(**{**fields, **changes})


def assert_same(a, b):
    assert msgspec.structs.replace(a, steps=[]) == msgspec.structs.replace(b, steps=[])
    assert len(a.steps) == len(b.steps)
    for x, y in zip(a.steps, b.steps, strict=True):
        for field in Step.__struct_fields__:
            mine, theirs = getattr(x, field), getattr(y, field)
            if field == "observation":
                assert mine.keys() == theirs.keys()
                for key in mine:
                    assert mine[key].dtype == theirs[key].dtype
                    assert mine[key].shape == theirs[key].shape
                    assert mine[key].tobytes() == theirs[key].tobytes()
            elif field == "action":
                assert (mine is None) == (theirs is None)
                assert mine is None or (mine.dtype == theirs.dtype and mine.tobytes() == theirs.tobytes())
            else:
                assert mine == theirs


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.integers(0, 12), st.booleans())
def test_an_episode_comes_back_bit_for_bit(tmp_path_factory, seed, length, received):
    episode = make_episode(np.random.default_rng(seed), length)
    if received:
        episode = msgspec.structs.replace(episode, received=[3 * t for t in range(length + 1)])
    path = tmp_path_factory.mktemp("e") / "episodes" / "000004.parquet"
    write_episode(path, episode)
    assert_same(read_episode(path), episode)
    info = read_info(path)
    assert (info.first_seq, info.last_seq, info.ended) == (70, 70 + length, True)
    assert (info.first_received, info.last_received) == ((0, 3 * length) if received else (-1, -1))


def test_the_file_can_be_read_without_this_program(tmp_path):
    episode = make_episode(np.random.default_rng(0), 5)
    write_episode(tmp_path / "e.parquet", episode)
    table = pq.read_table(tmp_path / "e.parquet").to_pydict()
    assert table["reward"] == [step.reward for step in episode.steps]
    assert table["observation/tcp/pose"][2] == episode.steps[2].observation["tcp/pose"].tolist()
    assert table["observation/wrist"][0].startswith(b"\x89PNG")


def test_nothing_half_written_is_ever_seen(tmp_path, monkeypatch):
    monkeypatch.setattr("os.fsync", lambda fd: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(Exception, match="free space"):
        write_episode(tmp_path / "e.parquet", make_episode(np.random.default_rng(0), 2))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("cut", [0, 3, 100, -100, -1])
def test_truncated_files_name_path_cause_and_remedy(tmp_path, cut):
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 5))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(CorruptEpisode, match=r"e\.parquet is no whole episode .*; restore it"):
        read_episode(path)


def test_flipped_bits_never_pass_for_data(tmp_path):
    path = tmp_path / "e.parquet"
    episode = make_episode(np.random.default_rng(0), 5)
    write_episode(path, episode)
    good = path.read_bytes()
    refused = 0
    for at in range(4, len(good) - 8, max(1, len(good) // 150)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :])
        try:
            assert_same(read_episode(path), episode)  # in padding or unused statistics
        except CorruptEpisode:
            refused += 1
    assert refused > 75


REQUIRED = [
    *["seq", "received", "index", "action", "reward", "terminated", "truncated", "source", "intervention"],
    *["policy_version", "time_s"],
    *[f"observation/{key}" for key in ("wrist", "depth", "tcp/pose", "closed", "clock")],
]


def rewrite(path, change):
    """As another program would have written the file: the metadata are kept."""
    table = pq.read_table(path)
    pq.write_table(change(table).replace_schema_metadata(table.schema.metadata), path)


def test_an_image_of_another_size_is_not_even_decoded(tmp_path, monkeypatch):
    """Some kilobytes of PNG may be gigabytes of pixels."""
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 3))
    huge = cv2.imencode(".png", np.zeros((4000, 4000, 3), np.uint8))[1].tobytes()

    def enlarge(table):
        place = table.column_names.index("observation/wrist")
        return table.set_column(place, "observation/wrist", pa.array([huge] * table.num_rows, pa.binary()))

    rewrite(path, enlarge)
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("it was decoded"))
    with pytest.raises(CorruptEpisode, match="an image is no PNG of 12 x 16"):
        read_episode(path)


@pytest.mark.parametrize(
    "values",
    [pa.array([0, 1, 2, 3]), pa.array(list("0123")), pa.nulls(4)],
    ids=["numbers", "text", "nothing"],
)
def test_a_column_of_another_type_is_damage(tmp_path, values):
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 3))
    rewrite(path, lambda table: table.set_column(table.column_names.index("action"), "action", values))
    with pytest.raises(CorruptEpisode, match="no whole episode"):
        read_episode(path)


@pytest.mark.parametrize("row", [0, 3])
@pytest.mark.parametrize("column", REQUIRED)
def test_a_value_that_is_missing_is_named_by_its_column(tmp_path, column, row):
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 5))

    def forget(table):
        place = table.column_names.index(column)
        mask = pa.array([k == row for k in range(table.num_rows)])
        kept = pc.if_else(mask, pa.scalar(None, table[column].type), table[column])
        return table.set_column(place, column, kept)

    rewrite(path, forget)
    with pytest.raises(CorruptEpisode, match=f"column '{column}' lacks 1 of 6 values"):
        read_episode(path)


def test_what_need_not_be_known_may_be_missing(tmp_path):
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 5))
    place = pq.read_table(path).column_names.index("success")
    rewrite(path, lambda table: table.set_column(place, "success", pa.nulls(6, pa.bool_())))
    assert [step.success for step in read_episode(path).steps] == [None] * 6


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        ([], "holds no step"),
        ([0, 1, 3, 2, 4, 5], "index 3.* does not follow"),
        ([5, 4, 3, 2, 1, 0], "index 5.* does not follow"),
        ([1, 2, 3, 4, 5], "index 1.* does not follow"),
        ([0, 1, 1, 2, 3, 4, 5], "index 1.* does not follow"),
        ([0, 1, 2, 3], "metadata describe other steps"),
    ],
    ids=["empty", "swapped", "reversed", "headless", "doubled", "tailless"],
)
def test_rows_that_are_no_episode_are_refused(tmp_path, order, cause):
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 5))
    rewrite(path, lambda table: table.take(pa.array(order, pa.int64())))
    with pytest.raises(CorruptEpisode, match=rf"e\.parquet is no whole episode \(.*{cause}.*\); restore it"):
        read_episode(path)


def test_a_replay_would_drop_steps_that_are_not_numbered_in_turn(tmp_path):
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 5))
    place = pq.read_table(path).column_names.index("seq")
    rewrite(path, lambda table: table.set_column(place, "seq", pa.array([70, 70, 70, 70, 70, 75])))
    with pytest.raises(CorruptEpisode, match="step 70 comes after step 70"):
        read_episode(path)


def test_other_files_and_other_versions_are_named(tmp_path):
    path = tmp_path / "e.parquet"
    write_episode(path, make_episode(np.random.default_rng(0), 2))
    table = pq.read_table(path)
    pq.write_table(table.replace_schema_metadata({}), path)
    with pytest.raises(CorruptEpisode, match="metadata 'serl'"):
        read_episode(path)
    later = table.schema.metadata[b"serl"].replace(b'"schema":1', b'"schema":9')
    pq.write_table(table.replace_schema_metadata({b"serl": later}), path)
    with pytest.raises(CorruptEpisode, match="of version 9"):
        read_episode(path)
    with pytest.raises(CorruptEpisode, match="no episode file"):
        read_episode(tmp_path / "missing.parquet")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorruptEpisode, match="no episode"):
        read_dataset(tmp_path / "empty")


def test_a_dataset_is_read_in_order_and_of_one_spec(tmp_path):
    rng = np.random.default_rng(0)
    for number in (2, 0, 1):
        write_episode(tmp_path / "a" / f"{number:06d}.parquet", make_episode(rng, number + 1, number=number))
    assert [episode.number for episode in read_dataset(tmp_path)] == [0, 1, 2]
    assert len(read_dataset([tmp_path / "a" / "000001.parquet", tmp_path / "a"])) == 4
    other = msgspec.structs.replace(SPEC, task="U", action=ArraySpec(shape=(2,), dtype="float32"))
    with pytest.raises(SpecMismatch, match=r"000000.parquet does not fit U .*action: \(2,\) float32 here"):
        read_dataset(tmp_path, other)


@pytest.mark.parametrize("damage", ["nan", "missing", "none"])
def test_bad_steps_are_not_written(tmp_path, damage):
    episode = make_episode(np.random.default_rng(0), 2)
    if damage == "none":
        episode = msgspec.structs.replace(episode, steps=[])
    elif damage == "missing":
        del episode.steps[1].observation["depth"]
    else:
        episode.steps[1].observation["tcp/pose"][2] = np.nan
    with pytest.raises(BadStep):
        write_episode(tmp_path / "e.parquet", episode)
    assert list(tmp_path.iterdir()) == []


def test_success_return_and_length():
    steps = make_episode(np.random.default_rng(0), 3).steps
    steps = [msgspec.structs.replace(s, reward=1.5, success=s.index == 2) for s in steps]
    episode = make_episode(np.random.default_rng(0), 3, steps=steps)
    assert (episode.success, episode.episode_return, len(episode)) == (True, 6.0, 3)
