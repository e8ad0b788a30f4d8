"""What runs on a device: standard library, numpy and the runtime. Nothing of ours is imported there."""
