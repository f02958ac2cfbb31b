"""ROS 2: a bridge between a robot server and topics, and a robot server for an arm that ROS 2 control drives."""
