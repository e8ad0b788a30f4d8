"""Bytes that outlive a run: object store, backends and release registry. Imports nothing of ours."""
