"""The study's arms on the real maze, a few dozen steps each."""

import gymnasium
import msgspec
import pytest

from serl_suite.agents.lagrangian import LagrangianRLPD
from serl_suite.agents.recovery import RecoveryRLPD
from serl_suite.agents.rlpd import RLPD
from serl_suite.nodes.passivity_study import (
    ARMS,
    Arm,
    ArmResult,
    EpisodeRecord,
    NoEnergyAccount,
    Study,
    StudySettings,
    run_arm,
)
from serl_suite.nodes.study_report import summarise, table, write_report

SHORT = StudySettings(steps=170, warmup_steps=100, utd=1, demo_episodes=1, episodes=1)


class Recording(gymnasium.Wrapper):
    """Writes down what was asked of the environment and what it says was executed."""

    def __init__(self, env):
        super().__init__(env)
        self.asked, self.executed = [], []

    def step(self, action):
        result = self.env.step(action)
        self.asked.append(action.tolist())
        self.executed.append(result[-1]["executed_action"].tolist())
        return result


def made_up(arm, seed=0, success=True, violations=0, energy_j=0.5):
    record = EpisodeRecord(
        success=success, length=40, violations=violations, energy_j=energy_j, peak_force_n=9.0
    )
    return ArmResult(
        aware=arm.aware, filtered=arm.filtered, seed=seed, settings=SHORT, training=[record] * 3,
        evaluation=[record] * 4,
    )  # fmt: skip


def test_the_same_seed_is_the_same_study_and_the_filter_keeps_every_violation_away():
    seen = []
    first = run_arm(Arm(aware=True, filtered=True), SHORT, 3, seen.append)
    assert seen == list(range(1, SHORT.steps + 1))
    assert first == run_arm(Arm(aware=True, filtered=True), SHORT, 3)
    assert sum(record.length for record in first.training) <= SHORT.steps
    assert len(first.evaluation) == SHORT.episodes
    assert all(record.violations == 0 for record in first.training + first.evaluation)
    free = run_arm(Arm(aware=True, filtered=False), SHORT, 3)
    assert sum(record.violations for record in free.training) > 0


@pytest.mark.parametrize(
    ("arm", "form", "kind"),
    [
        (Arm(False, True), "lagrangian", RLPD),
        (Arm(True, True), "lagrangian", LagrangianRLPD),
        (Arm(True, True), "recovery", RecoveryRLPD),
    ],
)
def test_each_arm_learns_with_its_agent_from_what_was_executed(arm, form, kind):
    env = Recording(gymnasium.make("FrankaMaze-v0", passivity=arm.filtered))
    study = Study(env, arm, msgspec.structs.replace(SHORT, form=form, steps=120), 0)
    study.run(lambda step: None)
    assert type(study.agent) is kind
    stored = {tuple(a) for a in study.online.sample(500).action.tolist()}
    assert stored <= {tuple(a) for a in env.executed}
    assert not stored & {tuple(a) for a in env.asked}


def test_a_task_without_an_energy_tank_is_refused_by_name():
    with pytest.raises(NoEnergyAccount, match="FrankaReach-v0"):
        run_arm(ARMS[0], msgspec.structs.replace(SHORT, task="FrankaReach-v0"), 0)


def test_the_table_adds_up_over_seeds():
    results = [made_up(ARMS[0], 0, violations=2), made_up(ARMS[0], 1, success=False), made_up(ARMS[3])]
    first, last = summarise(results)
    assert (first.arm, first.seeds, first.episodes, first.success_rate) == ("agnostic-off", 2, 8, 0.5)
    assert (first.violations, first.violating_episodes, first.training_violations) == (1.0, 4, 6)
    assert (last.arm, last.success_rate, last.energy_success_j) == ("aware-on", 1.0, 0.5)
    assert "| agnostic-off | 50 % (22 to 78) | 1.00 | 4 of 8 | 0.50 | 0.50 | 9.0 | 6 |" in table(
        [first, last]
    )


def test_the_report_holds_table_and_pictures(tmp_path):
    rows = write_report([made_up(arm) for arm in ARMS], tmp_path)
    assert [row["arm"] for row in msgspec.json.decode((tmp_path / "table.json").read_bytes())["rows"]] == [
        arm.name for arm in ARMS
    ]
    assert table(rows) in (tmp_path / "table.md").read_text()
    for name in ("evaluation.png", "training.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
