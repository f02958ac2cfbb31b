"""The robot server of an arm that a compliant ROS 2 controller drives; the controller is started elsewhere:

ros2 launch launch/compliant_arm.launch.py namespace:=/left base_frame:=base
"""

from launch.actions import DeclareLaunchArgument, ExecuteProcess, Shutdown
from launch.substitutions import LaunchConfiguration

from launch import LaunchDescription


def generate_launch_description() -> LaunchDescription:
    """Asked by `ros2 launch`: the arguments, and what they start."""
    return LaunchDescription(
        [
            DeclareLaunchArgument("namespace", default_value="/", description="Of the controller's topics."),
            DeclareLaunchArgument("base_frame", default_value="base", description="Of the controller's poses."),
            DeclareLaunchArgument(
                "bind", default_value="tcp://127.0.0.1:5755", description="Where clients connect."
            ),
            ExecuteProcess(
                cmd=[
                    "serl", "ros2", "arm", "--namespace", LaunchConfiguration("namespace"),
                    "--base-frame", LaunchConfiguration("base_frame"), "--bind", LaunchConfiguration("bind"),
                ],
                name="robot_server",
                output="screen",
                sigterm_timeout="10",
                on_exit=Shutdown(reason="the robot server has ended"),
            ),
        ]
    )  # fmt: skip
