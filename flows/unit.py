"""`stress-vision up` as a service that starts with the machine: a systemd unit for this very installation."""

import re
import sys
from collections.abc import Iterator

from flows.config import environment_for_elsewhere

_KEPT = ("STRESS_VISION_", "AWS_", "PREFECT_HOME", "PYTHONPATH", "PATH")
_SECRET = ("SECRET", "TOKEN", "PASSWORD", "ACCESS_KEY")
_UNIT = """\
# systemctl --user enable --now stress-vision    (loginctl enable-linger: also while nobody is logged in)
[Unit]
Description=Nightly retraining: Prefect server, worker and schedule

[Service]
{environment}
# what is secret stands there, readable for its owner only; a missing file is none
EnvironmentFile=-%h/.config/stress-vision.env
ExecStart={command}
Restart=always
RestartSec=10
# a training that takes too much memory ends alone, not server and worker with it
OOMPolicy=continue
# the worker tells the server what becomes of its runs before both end
KillMode=mixed
TimeoutStopSec=60

[Install]
WantedBy=default.target
"""


def unit(port: int) -> str:
    """A unit with this interpreter and this shell's settings, but none of its secrets."""
    words = [sys.executable, "-m", "flows.cli", "up", "--port", str(port)]
    # $ is nothing special in the first of a command's words, and no other has one
    return _UNIT.format(command=" ".join(map(_word, words)), environment="\n".join(_settings()))


def _settings() -> Iterator[str]:
    for name, value in sorted(environment_for_elsewhere().items()):
        if name.startswith(_KEPT) and not any(word in name for word in _SECRET):
            yield f"Environment={_quoted(f'{name}={value}')}"


def _word(word: str) -> str:
    return word if re.fullmatch(r"[\w/.:@+-]+", word, re.ASCII) else _quoted(word)


def _quoted(text: str) -> str:
    """One word to systemd, whatever is in it (systemd.syntax(7), systemd.unit(5) on specifiers)."""
    for sign, escaped in (("\\", "\\\\"), ('"', '\\"'), ("\n", "\\n"), ("%", "%%")):
        text = text.replace(sign, escaped)
    return f'"{text}"'
