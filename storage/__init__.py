"""Bytes that outlive a run: the object store, its backends and the release registry. Imports nothing of ours."""
