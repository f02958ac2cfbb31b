"""Everything a training run can be told; the resolved values are written into the run folder as config.yaml."""

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
import tyro
from tyro.constructors import PrimitiveConstructorSpec

from serl_suite.agents.rlpd_config import RLPDConfig
from serl_suite.errors import SerlError
from serl_suite.networks.encoder_config import EncoderConfig
from serl_suite.rig import Rig, read_rig

__all__ = [
    "PIXELS",
    "SIDES", "ActorConfig", "ActorSettings", "BadConfig", "EvaluationConfig", "LearnerConfig", "RigFile",
    "TrainConfig",
]  # fmt: skip

RigFile = Annotated[
    Rig | None,
    PrimitiveConstructorSpec(
        nargs=1,
        metavar="FILE",
        instance_from_str=lambda words: read_rig(Path(words[0])),
        is_instance=lambda value: value is None or isinstance(value, Rig),
        str_from_instance=lambda rig: ["none" if rig is None else rig.source],
    ),
]
"""A file on the command line; what it says in a configuration."""


class BadConfig(SerlError):
    """Settings that contradict each other."""


class ActorSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a learner tells its actors at their welcome."""

    policy: dict[str, Any]
    """What `make_policy` builds from."""
    random_steps: int
    """Env steps of the run, from its beginning, in which actors act uniformly at random."""
    obs: Literal["state", "pixels"]
    reward: str
    """As the learner's run has it; a model may lie elsewhere on an actor's machine."""
    pace: Literal["lockstep", "realtime"]
    block_steps: int
    most_owed: float
    """In lockstep, actors wait while more updates than this are owed: several of them outrun a learner."""
    evaluation: "EvaluationConfig"


class LearnerConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The learner process: replay and updates."""

    bind: str = "tcp://127.0.0.1:0"
    """Address that actors connect to; port 0 takes a free one. Anything but loopback needs keys."""
    keys: str | None = None
    """Folder of CURVE keys (`serl keys`)."""
    device: str = "cpu"
    """Torch device of replay and networks, such as cpu or cuda."""
    replay_device: Literal["device", "cpu"] = "device"
    """Where the replay is: on the device, or in the host's memory, for a card that it does not fit on. Batches are then
    gathered by the host, which limits how many updates a second there are."""
    threads: int = 1
    """Torch threads. One is right beside a busy actor; idle machines gain from more."""
    replay_capacity: int = 200_000
    """Frames kept in each of the two replays, online and demonstrations."""
    warmup_steps: int = 100
    """Online transitions before the first update."""
    max_owed_updates: int = 2000
    """Owed updates past this are forgiven; the realised ratio is logged."""
    publish_every: int = 50
    """Updates between two published policies (paced runs only; in lockstep every block ends with one)."""
    checkpoint_every: int = 500
    """Env steps between two checkpoints."""


class ActorConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The actor process: environment and policy."""

    pace: Literal["lockstep", "realtime"] = "lockstep"
    """lockstep: simulated time waits for the learner, and an uninterrupted run repeats bit for bit. realtime: the
    environment's own rate, as on a robot; the step never waits for the network."""
    block_steps: int = 10
    """Lockstep only: env steps the actor takes while the learner pays the updates of the block before."""
    cameras: tuple[str, ...] = ()
    """Cameras to observe; with --obs pixels all of them by default."""
    image_size: int = 128
    """Side of their pictures [pixels]."""
    frame_stack: int = 1
    """Pictures of each camera that are observed together: the newest, and those of the steps before it."""


class EvaluationConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """When training ends early, and how its result is measured."""

    window: int = 20
    """Training episodes in the rolling success rate."""
    attempt_at: float = 0.95
    """Rolling success rate from which the deterministic policy is evaluated; above 1: never before the end."""
    attempt_every: int = 200
    """Env steps at least between two such evaluations."""
    attempt_episodes: int = 200
    """Episodes of such an evaluation."""
    attempt_pass_at: float = 0.995
    """Success rate that ends training; above `pass_at`, since the last evaluation draws its episodes anew."""
    pass_at: float = 0.95
    """Success rate of the last evaluation that counts as passed."""
    episodes: int = 100
    """Fresh episodes of the last evaluation."""


SIDES = 8, 1024
"""Smallest and largest side of a camera's pictures [pixels]."""
PIXELS = RLPDConfig(learning_rate=5e-4, hidden=(256, 256), encoder=EncoderConfig(width=128))
"""Settings of an agent that learns from pictures."""


class TrainConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One training run."""

    task: Annotated[str, tyro.conf.Positional]
    """Gymnasium id; `serl tasks` lists ours, any other with Box or Dict observations and Box actions works."""
    obs: Literal["state", "pixels"] = "state"
    """state: what the task tells of itself, which only a simulation can. pixels: cameras and proprioception."""
    reward: str = "task"
    """Who judges success. task: the task itself. classifier:MODEL: a file of `serl reward train`, by the cameras.
    key: a person at this terminal; key:DEVICE: at another one."""
    rig: RigFile = None
    """The rig to train on, such as hardware/rigs/twin.yaml; by default the task's own simulation in this process."""
    seed: int = 0
    """Seed of demonstrations, environment, networks and sampling."""
    max_steps: int = 10_000
    """Env steps after which training ends, passed or not."""
    demos: str | None = None
    """Demonstrations: an episode file, a folder of them, or a run folder. Unset: recorded from the task's scripted
    expert where it has one; `none`: train without."""
    demo_episodes: int = 20
    """Demonstrations to record from the scripted expert."""
    demo_noise: float = 0.2
    """Standard deviation of the scripted expert's action noise, in action units."""
    agent: RLPDConfig = msgspec.field(default_factory=RLPDConfig)
    """The algorithm. With --obs pixels other defaults hold, as the help with that option shows."""
    actors: int = 1
    """Actor processes that `serl train` runs on this machine, all feeding the one learner."""
    learner: LearnerConfig = msgspec.field(default_factory=LearnerConfig)
    actor: ActorConfig = msgspec.field(default_factory=ActorConfig)
    evaluation: EvaluationConfig = msgspec.field(default_factory=EvaluationConfig)

    def __post_init__(self) -> None:
        if self.agent.utd == "free" and self.actor.pace == "lockstep":
            raise BadConfig(
                "--agent.utd free has no end in lockstep, where simulated time waits for the learner; "
                "add --actor.pace realtime, or name a ratio"
            )
        if self.rig is not None and self.actors > 1:
            raise BadConfig(f"--actors {self.actors} with --rig: an arm obeys one actor; leave --actors out")
        least = {
            "--actors": (self.actors, 1),
            "--max-steps": (self.max_steps, 1),
            "--demo-episodes": (self.demo_episodes, 1),
            "--actor.block-steps": (self.actor.block_steps, 1),
            "--actor.image-size": (self.actor.image_size, SIDES[0]),
            "--actor.frame-stack": (self.actor.frame_stack, 1),
            "--learner.threads": (self.learner.threads, 1),
            "--learner.replay-capacity": (self.learner.replay_capacity, 2),
            "--learner.warmup-steps": (self.learner.warmup_steps, 0),
            "--learner.publish-every": (self.learner.publish_every, 1),
            "--learner.checkpoint-every": (self.learner.checkpoint_every, 1),
            "--evaluation.window": (self.evaluation.window, 1),
            "--evaluation.attempt-episodes": (self.evaluation.attempt_episodes, 1),
            "--evaluation.episodes": (self.evaluation.episodes, 1),
        }
        for option, (value, smallest) in least.items():
            if value < smallest:
                raise BadConfig(f"{option} is {value}; give at least {smallest}")
