"""An actor on a rig, of a learner on this or another machine:

ros2 launch launch/actor.launch.py task:=FrankaPegInsert-v0 connect:=tcp://127.0.0.1:5555
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Asked by `ros2 launch`: the arguments, and what they start."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("task", default_value="FrankaPegInsert-v0", description="Gymnasium id."),
            DeclareLaunchArgument(
                "connect", default_value="tcp://127.0.0.1:5555", description="The learner's address."
            ),
            DeclareLaunchArgument("rig", default_value="hardware/rigs/fr3.yaml", description="The rig's file."),
            DeclareLaunchArgument("folder", default_value="actor", description="Keeps steps that are not sent yet."),
            ExecuteProcess(
                cmd=[
                    "serl", "actor", LaunchConfiguration("task"), "--connect", LaunchConfiguration("connect"),
                    "--rig", LaunchConfiguration("rig"), "--folder", LaunchConfiguration("folder"),
                    "--actor.pace", "realtime",
                ],
                name="actor",
                output="screen",
                additional_env={"OMP_NUM_THREADS": "1"},
                sigterm_timeout="60",  # an episode is brought to its end and its steps to disk
            ),
        ]
    )  # fmt: skip
