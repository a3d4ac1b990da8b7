"""`agentkit demo`: the main job, shown and checked."""
