"""The robot server of a rig, and its bridge to ROS 2: `ros2 launch launch/robot.launch.py rig:=hardware/rigs/fr3.yaml`.

Ctrl-C brings the arm to rest first. Without the server there is nothing to bridge, so its end ends both.
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, Shutdown
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Asked by `ros2 launch`: the arguments, and what they start."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("rig", default_value="hardware/rigs/fr3.yaml", description="The rig's file."),
            DeclareLaunchArgument(
                "address", default_value="tcp://127.0.0.1:5755", description="Of the server: as the rig says."
            ),
            DeclareLaunchArgument("namespace", default_value="/", description="Before the names of topics."),
            DeclareLaunchArgument("arm_id", default_value="fr3", description="Of the robot description."),
            ExecuteProcess(
                cmd=["serl", "robot", "franka", "--rig", LaunchConfiguration("rig")],
                name="robot_server",
                output="screen",
                sigterm_timeout="15",
                on_exit=Shutdown(reason="the robot server has ended"),
            ),
            ExecuteProcess(
                cmd=[
                    "serl", "ros2", "bridge", "--address", LaunchConfiguration("address"),
                    "--namespace", LaunchConfiguration("namespace"), "--arm-id", LaunchConfiguration("arm_id"),
                ],
                name="bridge",
                output="screen",
                sigterm_timeout="10",
                respawn=True,
                respawn_delay=2.0,
            ),
        ]
    )  # fmt: skip
