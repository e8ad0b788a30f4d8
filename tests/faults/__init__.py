"""What a fleet does when things go wrong: `python -m tests.faults`, `--list` for a line a case.

cases      which faults there are, at which step and moment of a rollout
injector   runs on a device in place of its Python, and lets a fault happen there
rig        devices, releases and a ledger for one case; runs it and judges how it ended
"""
