"""`stress-vision up` as a service that starts with the machine: a systemd unit for this very installation."""

import os
import shlex
import sys
from collections.abc import Iterator

_KEPT = ("STRESS_VISION_", "AWS_", "PREFECT_HOME", "PYTHONPATH", "PATH")
_SECRET = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY")
_UNIT = """\
# systemctl --user enable --now stress-vision    (loginctl enable-linger: also while nobody is logged in)
[Unit]
Description=Nightly retraining: Prefect server, worker and schedule
Wants=network-online.target
After=network-online.target

[Service]
{environment}
# what is secret stands there, readable for its owner only; a missing file is none
EnvironmentFile=-%h/.config/stress-vision.env
ExecStart={command}
Restart=always
RestartSec=10
# the worker tells the server what becomes of its runs before both end
KillMode=mixed
TimeoutStopSec=60

[Install]
WantedBy=default.target
"""


def unit(port: int) -> str:
    """A unit with this interpreter and this shell's settings, but none of its secrets."""
    command = shlex.join([sys.executable, "-m", "flows.cli", "up", "--port", str(port)])
    return _UNIT.format(command=command.replace("%", "%%"), environment="\n".join(_settings()))


def _settings() -> Iterator[str]:
    for name, value in sorted(os.environ.items()):
        if name.startswith(_KEPT) and not any(word in name for word in _SECRET):
            escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("%", "%%")
            yield f'Environment="{name}={escaped}"'
