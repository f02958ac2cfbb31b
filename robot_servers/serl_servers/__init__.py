"""Drivers and servers: the processes that own hardware."""
