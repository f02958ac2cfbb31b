"""A learner: `ros2 launch launch/learner.launch.py task:=FrankaPegInsert-v0 run:=runs/peg demos:=demos/peg`."""

from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Asked by `ros2 launch`: the arguments, and what they start."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("task", default_value="FrankaPegInsert-v0", description="Gymnasium id."),
            DeclareLaunchArgument("run", default_value="runs/launched", description="Folder of the run; new."),
            DeclareLaunchArgument("demos", default_value="none", description="Demonstrations, or none."),
            DeclareLaunchArgument(
                "bind", default_value="tcp://127.0.0.1:5555", description="Where actors connect."
            ),
            ExecuteProcess(
                cmd=[
                    "serl", "learner", LaunchConfiguration("task"), "--run", LaunchConfiguration("run"),
                    "--demos", LaunchConfiguration("demos"), "--learner.bind", LaunchConfiguration("bind"),
                    "--actor.pace", "realtime",
                ],
                name="learner",
                output="screen",
                additional_env={"OMP_NUM_THREADS": "1"},
                sigterm_timeout="120",  # journal and checkpoint
            ),
        ]
    )  # fmt: skip
