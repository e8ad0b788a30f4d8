"""Completion for bash, written out whole: pressing Tab starts no Python."""

import argparse
import shlex
from collections.abc import Callable, Iterator, Sequence

_SCRIPT = """\
# source <(stress-vision completion bash), or put it where bash-completion looks for it:
# ~/.local/share/bash-completion/completions/stress-vision
_stress_vision() {{
    local current="${{COMP_WORDS[COMP_CWORD]}}" words=""
    if ((COMP_CWORD == 1)); then
        words={commands}
    else
        case "${{COMP_WORDS[1]}} ${{COMP_WORDS[COMP_CWORD-1]}}" in
{values}
        *)
            case "$current ${{COMP_WORDS[1]}}" in
{options}
            esac ;;
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o bashdefault -o default -F _stress_vision stress-vision
"""


def bash_completion(parser_for: Callable[[Sequence[str]], argparse.ArgumentParser]) -> str:
    """A script for bash; `parser_for` gives the parser with all options of the command that it is given."""
    commands = {name: _command(parser_for([name]), name) for name in _commands(parser_for([]))}
    values = [
        f"        {shlex.quote(f'{name} {option}')}) words={shlex.quote(' '.join(choices))} ;;"
        for name, command in commands.items()
        for option, choices in _choices(command)
    ]
    options = [
        f"            -*\\ {name}) words={shlex.quote(' '.join(command._option_string_actions))} ;;"
        for name, command in commands.items()
    ]
    return _SCRIPT.format(
        commands=shlex.quote(" ".join(commands)), values="\n".join(values), options="\n".join(options)
    )


def _commands(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    (found,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
    return found


def _command(parser: argparse.ArgumentParser, name: str) -> argparse.ArgumentParser:
    return _commands(parser)[name]


def _choices(command: argparse.ArgumentParser) -> Iterator[tuple[str, list[str]]]:
    """Options that take one of a few words; those of a field have them as {one,other} for the help."""
    for option, action in command._option_string_actions.items():
        of_field = action.metavar if isinstance(action.metavar, str) else ""
        words = list(action.choices or (of_field.strip("{}").split(",") if of_field.startswith("{") else ()))
        # of a type, or null; and bash would take a word with a blank for two
        if words and "null" not in words and not any(" " in word for word in words):
            yield option, sorted(words)
