"""Pretraining: every picture is found, features tell where small things are, and a stop leaves nothing behind."""

from itertools import islice, pairwise
from threading import Event

import gymnasium
import numpy as np
import pytest
import torch

from serl_suite.data.episodes import Episode, write_episode
from serl_suite.networks.backbone import make_backbone
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.networks.weights import read_weights
from serl_suite.nodes.environment import Environment
from serl_suite.nodes.pretrain import PretrainConfig, pretrain, train_backbone
from serl_suite.nodes.pretrain_pictures import Album, NoPictures, Pair, recorded, rendered
from serl_suite.wire.messages import Step
from serl_suite.wire.spaces import ArraySpec, EnvSpec

SIDE = 32


def scene(x, y, rng, side=SIDE):
    """A small bright square on a background that is the same in every picture, and a little noise."""
    background = (
        np.random.default_rng(7).integers(60, 120, (side // 8, side // 8, 3)).repeat(8, 0).repeat(8, 1)
    )
    picture = background + rng.normal(0.0, 3.0, (side, side, 3))
    picture[y : y + 4, x : x + 4] = (220, 80, 30)
    return picture.clip(0, 255).astype(np.uint8)


def scenes(n, seed=0):
    """Pictures, and where the square is. Shapes: (n, side, side, 3), (n, 2)"""
    rng = np.random.default_rng(seed)
    places = rng.integers(0, SIDE - 4, (n, 2))
    return np.stack([scene(x, y, rng) for x, y in places]), places


def album(n, side=SIDE, seed=0):
    """Pairs between which the square moves."""
    rng, kept = np.random.default_rng(seed), Album(side, n, 0)
    for place in rng.integers(0, side - 4, (n, 2)):
        moved = np.clip(place + rng.integers(-4, 5, 2), 0, side - 4)
        motion = (moved - place).astype(np.float32) / 4
        kept.add(Pair("Pick-v0 wrist", scene(*place, rng, side), scene(*moved, rng, side), motion))
    return kept.pairs()


def write(path, pictures, cameras=("wrist",), task="Pick-v0", state=("force", "tcp_pose")):
    """An episode file that shows these pictures to each of the cameras; its state counts steps, by 2 and by 3."""
    observation = {camera: ArraySpec(shape=pictures[0].shape, dtype="uint8") for camera in cameras}
    spec = EnvSpec(
        task=task,
        observation=observation | {key: ArraySpec(shape=(1,), dtype="float32") for key in state},
        action=ArraySpec(shape=(1,), dtype="float32", low=-1, high=1),
    )
    steps = [
        Step(
            seq=index,
            episode=0,
            index=index,
            observation=dict.fromkeys(cameras, picture)
            | {key: np.full(1, by * index, np.float32) for by, key in enumerate(state, 2)},
            action=np.full(1, 0.25 * index, np.float32) if index else None,
            truncated=index == len(pictures) - 1,
        )
        for index, picture in enumerate(pictures)
    ]
    write_episode(path, Episode(session_id="s", number=0, spec=spec, steps=steps))


def flat(value, side=SIDE):
    return np.full((side, side, 3), value, np.uint8)


def pair(value, side=8, eye="a", motion_dim=1):
    return Pair(eye, flat(value, side), flat(value, side), np.full(motion_dim, value, np.float32))


def test_every_step_through_every_camera_is_found_once(tmp_path):
    write(tmp_path / "run" / "episodes" / "a.parquet", [flat(v) for v in (1, 2, 3)], ("front", "wrist"))
    write(tmp_path / "run" / "demos" / "b.parquet", [flat(v) for v in (4, 5)], ("wrist",), task="Reach-v0")
    found = [
        (pair.eye, int(pair.before[0, 0, 0]), int(pair.after[0, 0, 0]), pair.motion.tolist())
        for pair in recorded([tmp_path / "run"])
    ]
    pick = [(f"Pick-v0 {eye}", v, v + 1, [3.0]) for eye in ("front", "wrist") for v in (1, 2)]
    assert sorted(found) == [*pick, ("Reach-v0 wrist", 4, 5, [3.0])]


@pytest.mark.parametrize(("state", "motion"), [(("force", "speed"), [2.0, 3.0]), ((), [0.25])])
def test_without_a_pose_the_state_or_the_action_tells_of_motion(tmp_path, state, motion):
    write(tmp_path / "a.parquet", [flat(v) for v in (1, 2)], state=state)
    (only,) = recorded([tmp_path / "a.parquet"])
    assert only.motion.tolist() == motion


def test_a_frame_stacks_older_pictures_are_not_another_eyes(tmp_path):
    write(tmp_path / "a.parquet", [flat(v) for v in (1, 2)], ("wrist", "wrist-1"))
    (only,) = recorded([tmp_path / "a.parquet"])
    assert only.eye == "Pick-v0 wrist"


def test_places_without_pictures_are_named(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(NoPictures, match=r"no episode .* in .*empty"):
        list(recorded([tmp_path / "empty"]))
    write(tmp_path / "a.parquet", [flat(0)] * 2, ())
    kept = Album(SIDE, 10, 0)
    for each in recorded([tmp_path / "a.parquet"]):
        kept.add(each)
    with pytest.raises(NoPictures, match=r"observe no camera.*serl demo record"):
        kept.pairs()


def test_shorter_motions_are_followed_by_zeros():
    kept = Album(8, 10, 0)
    kept.add(pair(1, eye="Pick-v0 wrist", motion_dim=3))
    kept.add(pair(2, eye="Walk-v0 head", motion_dim=2))
    assert kept.pairs().motions.tolist() == [[1, 1, 1], [2, 2, 0]]


def test_an_album_keeps_each_pair_equally_often():
    counts = np.zeros(40)
    for seed in range(400):
        kept = Album(8, 10, seed)
        for value in range(40):
            kept.add(pair(value, eye="early" if value < 20 else "late"))
        pairs = kept.pairs()
        values = pairs.before[:, 0, 0, 0].numpy()
        assert len(set(values)) == len(values) == 10
        assert np.array_equal(values, pairs.after[:, 0, 0, 0].numpy())
        assert np.array_equal(values, pairs.motions[:, 0].numpy())
        assert pairs.counts().get("early", 0) == (values < 20).sum()
        counts[values] += 1
    assert counts.min() > 60  # 100 expected, standard deviation 9
    assert counts.max() < 140


def test_an_album_resizes_and_keeps_copies():
    kept, large = Album(4, 10, 0), pair(10, 8)
    large.before[:, 4:] = 30
    kept.add(large)
    small = pair(5, 4)
    kept.add(small)
    small.before[:] = 0
    pairs = kept.pairs()
    assert pairs.before.shape == pairs.after.shape == (2, 4, 4, 3)
    assert pairs.before[0, 0, :, 0].tolist() == [10, 10, 30, 30]
    assert pairs.before[1].unique().tolist() == [5]


class _Window(gymnasium.Env):
    """Shows the number of the step; its actions have bounds of their own."""

    metadata = {"render_modes": [], "render_fps": 10}  # noqa: RUF012
    observation_space = gymnasium.spaces.Dict(
        {"wrist": gymnasium.spaces.Box(0, 255, (8, 8, 3), np.uint8), "x": gymnasium.spaces.Box(-1, 1, (1,))}
    )
    action_space = gymnasium.spaces.Box(2.0, 4.0, (2,))

    def __init__(self, render_mode=None):
        self.render_mode = render_mode

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return self._observation(), {}

    def step(self, action):
        assert ((action >= 2.0) & (action <= 4.0)).all()
        self.steps += 1
        return self._observation(), 0.0, self.steps == 12, False, {}

    def _observation(self):
        return {"wrist": flat(self.steps, 8), "x": np.zeros(1, np.float32)}


def test_a_twin_without_an_expert_wanders_within_its_bounds():
    gymnasium.register("Window-v0", entry_point=_Window)
    seen = list(islice(rendered(Environment("Window-v0"), 0), 60))
    del gymnasium.registry["Window-v0"]
    assert {pair.eye for pair in seen} == {"Window-v0 wrist"}
    steps = [int(pair.before[0, 0, 0]) for pair in seen]
    assert [int(pair.after[0, 0, 0]) for pair in seen] == [step + 1 for step in steps]
    assert steps.count(0) >= 5
    assert all(b in (0, a + 1) for a, b in pairwise(steps))
    assert max(steps) == 11


def test_a_twin_is_looked_at_from_all_its_cameras_and_the_seed_decides():
    environment = Environment("FrankaReach-v0", obs="pixels", image_size=16)
    runs = [list(islice(rendered(environment, seed), 24)) for seed in (0, 0, 1)]
    environment.close()
    assert {pair.eye for pair in runs[0]} == {"FrankaReach-v0 front", "FrankaReach-v0 wrist"}
    pictures = [np.stack([pair.after for pair in run]) for run in runs]
    assert np.array_equal(pictures[0], pictures[1])
    assert not np.array_equal(pictures[0], pictures[2])
    plain = Environment("FrankaReach-v0")
    with pytest.raises(NoPictures, match=r"FrankaReach-v0 shows no picture.*--cameras"):
        next(rendered(plain, 0))


def where_error(backbone):
    """Of the square's place, read off features by ridge regression, on pictures that neither has seen [pixels]."""
    (a, at_a), (b, at_b) = scenes(300, seed=1), scenes(200, seed=2)
    with torch.no_grad():
        x, y = (backbone(torch.from_numpy(images)).flatten(1).double() for images in (a, b))
    middle, goal = x.mean(0), torch.from_numpy(at_a).double()
    x, y = x - middle, y - middle
    kernel = x @ x.T
    lift = 1e-3 * kernel.diagonal().mean() * torch.eye(len(x))
    told = y @ x.T @ torch.linalg.solve(kernel + lift, goal - goal.mean(0)) + goal.mean(0)
    return float((told - torch.from_numpy(at_b)).norm(dim=1).mean())


def quiet(update, loss):
    pass


def test_features_tell_where_a_small_object_is_better_than_a_random_network_s():
    losses = []
    config = PretrainConfig(side=SIDE, updates=300, batch=32)
    backbone = train_backbone(config, album(500), lambda update, loss: losses.append(loss), Event())
    assert len(losses) == 300
    assert np.mean(losses[-20:]) < 0.5 * np.mean(losses[:20])
    random = make_backbone(EncoderConfig(frozen=True, weights="random"), SIDE, torch.Generator())
    assert where_error(backbone) < 0.5 * where_error(random)


@pytest.mark.parametrize("backbone", ["cnn", "dilated", "resnet10"])
def test_the_weights_are_written_with_where_they_come_from(tmp_path, backbone):
    pairs, out = album(40), tmp_path / "weights" / "a.safetensors"
    config = PretrainConfig(backbone=backbone, side=SIDE, updates=3, batch=4, seed=5)
    assert pretrain(config, pairs, out, quiet, Event())
    _, info = read_weights(out)
    assert info.source == {"Pick-v0 wrist": 40}
    assert info.trained["updates"] == 3
    again = train_backbone(config, pairs, quiet, Event())
    read = make_backbone(
        EncoderConfig(backbone=backbone, frozen=True, weights=str(out)), SIDE, torch.Generator()
    )
    for name, tensor in again.state_dict().items():
        assert torch.equal(tensor, read.state_dict()[name]), "the seed decides everything"


def test_eyes_that_a_batch_lacks_do_no_harm():
    kept = Album(SIDE, 100, 0)
    for number in range(12):
        kept.add(pair(10 * number, SIDE, eye=f"camera {number}"))
    assert (
        train_backbone(PretrainConfig(side=SIDE, updates=5, batch=2), kept.pairs(), quiet, Event())
        is not None
    )


def test_stopped_it_writes_nothing(tmp_path):
    stop, updates = Event(), []

    def progress(update, loss):
        updates.append(update)
        if update == 2:
            stop.set()

    config = PretrainConfig(side=SIDE, updates=50, batch=4)
    assert not pretrain(config, album(8), tmp_path / "a.safetensors", progress, stop)
    assert updates == [1, 2]
    assert list(tmp_path.iterdir()) == []
