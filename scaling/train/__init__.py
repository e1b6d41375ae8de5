"""The one trainer: sharding, objectives, optimizer, loop, checkpoints."""
