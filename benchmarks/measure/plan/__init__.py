"""The takt planner: which arrangement of a station holds a cycle time on this machine."""
