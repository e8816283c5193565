"""Understand the habits of kubectl, docker, Slurm and git users: synonyms, short options, a missing `--`.

A word that can only mean one thing is understood. Anything else is refused with one sentence that has the right words.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

import typer
from typer.core import TyperCommand, TyperGroup

from runway.cli.config import EMPTY, Config, ConfigError, load_config
from runway.cli.foreign import is_sbatch_file
from runway.text import shorten

COMMANDS: Final = {
    "ls": ("ps", "list", "jobs", "queue", "squeue", "sacct"),
    "status": ("describe", "show", "get", "inspect", "events"),
    "cancel": ("delete", "rm", "kill", "scancel"),
    "submit": ("sbatch", "create", "apply"),
    "run": ("srun", "launch"),
    "logs": ("log",),
    "limits": ("pools", "sinfo"),
    "config": ("whoami",),
}
"""The synonyms of each command."""
OPTIONS: Final = {
    "--gpu": ("--gpus",),
    "--cpu": ("--cpus",),
    "--memory": ("--mem",),
    "--shared-memory": ("--shm-size",),
    "--name": ("-n", "--job-name"),
    "--env": ("-e",),
    "--timeout": ("-t", "--time"),
    "--tail": ("-n", "--lines"),
}
"""The synonyms of options, which help does not show; a command that has such an option itself keeps it."""
NO_COMMAND: Final = {
    "exec": "Runway runs no commands in a job; `runway logs -f` follows it.",
    "ssh": "Runway runs no commands in a job; `runway logs -f` follows it.",
    "attach": "Use `runway logs -f`.",
    "login": "Runway has no accounts; set the tenant with --tenant or RUNWAY_TENANT.",
    **dict.fromkeys(("check", "validate", "lint"), "Use `runway policy check FILE`."),
    "diff": "Use `runway policy diff FILE`.",
    "init": "Put defaults into .runway.yaml; `runway config` shows what is in force.",
}
NO_OPTION: Final = {
    ("--running", "--pending", "--failed"): "use --state, such as --state running",
    ("-q", "--quiet"): "use -o name",
    ("--json",): "use -o json",
    ("--yaml",): "use -o yaml",
    ("--command", "--cmd", "--entrypoint", "--wrap"): "put the command after --",
    ("--partition", "-p"): "name a pool with --pool, or a GPU type with --gpu-type",
    ("--gres",): "use --gpu and --gpu-type",
    ("--nodes", "-N", "--ntasks"): "a job runs on one node; use --cpu and --gpu",
    ("--namespace", "-A", "--account", "--all-namespaces"): "use --tenant NAME",
    ("-l", "--selector", "--label", "--labels"): "use --name",
    ("--last", "--latest"): "leave it out: without JOB, `status` and `logs` show the newest job",
    ("-d", "--detach"): "`runway submit` does not wait",
    ("-i", "-it", "-ti", "--tty", "--interactive", "--rm"): "a job has no terminal; leave it out",
    ("-c",): "use --cpu, or put -- before the command",
    ("--previous",): "use --attempt N",
    ("--for",): "`runway wait JOB` waits for the end",
    ("--policy",): "give the file without an option",
}
NO_ARGUMENT: Final = {
    "ls": "`runway status JOB` shows one job, and --name NAME lists those of a name",
    "quota": "use --tenant NAME",
    "limits": "use --tenant NAME",
}
MISSING: Final = {"wait": "`runway ls` lists the jobs"}
"""What to do where the argument is missing, by command."""
_CONFIG: Final = "runway.config"  # The key of the settings in the context.
EXAMPLES: Final = {
    "runway": (
        "export RUNWAY_TENANT=vision",
        "runway run --image python:3.12 --cpu 1 --memory 1Gi -- python -c 'print(1)'",
    ),
    "submit": ("runway submit --image python:3.12 --cpu 1 --memory 1Gi -- python train.py", "runway submit job.yaml"),
    "run": ("runway run --image python:3.12 --cpu 1 --memory 1Gi -- python train.py",),
    "ls": ("runway ls --state running --since 1d",),
    "status": ("runway status", "runway status train"),
    "logs": ("runway logs -f train",),
    "wait": ("runway wait train eval --timeout 2h",),
    "cancel": ("runway cancel train", "runway cancel --state pending --name eval -y"),
    "quota": ("runway quota --tenant vision",),
    "limits": ("runway limits",),
    "top": ("runway top", "runway top train"),
    "config": ("runway config",),
    "check": ("runway policy check policy.yaml",),
    "diff": ("runway policy diff policy.yaml --url https://runway.example.com",),
    "doctor": ("runway doctor --policy policy.yaml --as-runway",),
    "stop": ('runway stop "GPU driver rollout, back at 15:00"', "runway stop --show"),
    "resume": ("runway resume",),
}
"""The first lines of help, by command."""
_NUMBERS: Final = {
    "Input should be greater than or equal to ": "must be at least ",
    "Input should be less than or equal to ": "must be at most ",
    "Input should be a valid integer": "must be a whole number",
    "Input should be a valid number": "must be a number",
    "Input should be a finite number": "must be a number",
}
"""The starts of messages of pydantic; one that ends in a space is followed by a limit."""
_HOISTED: Final = ("--tenant", "--url", "--server")
_NOUNS: Final = ("job", "jobs", "pod", "pods")
_VERBS: Final = ("get", "describe", "delete")
_CLOSE: Final = 0.75
"""The least similarity of a suggestion: `--mem` and `--name` have 0.73."""
_SPEC_SUFFIXES: Final = (".yaml", ".yml", ".json")


def config_of(context: typer.Context) -> Config:
    """Return the files' settings for a command."""
    config: Config = context.meta.get(_CONFIG, EMPTY)
    return config


def plain(message: str) -> str:
    """Return pydantic's message about a number in plain words; any other message as it is."""
    for start, words in _NUMBERS.items():
        if message.startswith(start):
            return words + message[len(start) :] if start.endswith(" ") else words
    return message


def format_examples(command: Any, formatter: Any) -> None:
    """Begin the help of a command with its examples."""
    if lines := EXAMPLES.get(command.name or ""):
        formatter.write_paragraph()
        with formatter.indentation():
            formatter.write_text("\n".join(["\b", *lines]))


class Group(TyperGroup):
    """The command tree: it knows synonyms, and options before the command."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        args = list(args)
        if args[:1] in (["--version"], ["-V"]):
            args = ["version"]
        elif args[:1] == ["help"]:
            args = [*args[1:], "--help"]
        moved: list[str] = []
        while args and args[0].split("=")[0] in _HOISTED:
            count = 1 if "=" in args[0] else 2
            moved, args = [*moved, *args[:count]], args[count:]
        if moved and not args and not ctx.resilient_parsing:
            given = shorten(shlex.join([*moved, *(["VALUE"] if moved[-1] in _HOISTED else [])]), 200)
            ctx.fail(f"Give a command, such as `runway ls {given}`; RUNWAY_TENANT and RUNWAY_URL set both for all.")
        if args[:1] and args[0].startswith("-"):
            moved = []  # An option of `runway` itself, such as --help, needs no others.
        return super().parse_args(ctx, [*args[:1], *moved, *args[1:]])

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        format_examples(self, formatter)
        super().format_help_text(ctx, formatter)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        name, rest = args[0], args[1:]
        if name in _VERBS and rest[:1] and rest[0] in _NOUNS:
            # `get jobs` and `get jobs -w` are lists.
            lists = name == "get" and (len(rest) == 1 or rest[1].startswith("-"))
            name, rest = "ls" if lists else name, rest[1:]
        if name not in self.commands:
            name = next((command for command, words in COMMANDS.items() if name in words), name)
        if name not in self.commands and not ctx.resilient_parsing:
            ctx.fail(f"No such command {shorten(args[0])!r}. {self._advice(ctx, name)}")
        return super().resolve_command(ctx, [name, *rest])

    def _advice(self, ctx: Any, name: str) -> str:
        if name in NO_COMMAND:
            return NO_COMMAND[name]
        visible = [known for known, command in self.commands.items() if not command.hidden]
        close = [known for known in visible if len(name) > 1 and known.startswith(name)]
        close = close or get_close_matches(name, visible, cutoff=_CLOSE)
        return f"Did you mean {' or '.join(close)}?" if close else f"`{ctx.command_path} --help` lists the commands."


class Command(TyperCommand):
    """A command with hidden synonyms of its options. It explains the options of other tools."""

    def make_parser(self, ctx: Any) -> Any:
        parser = super().make_parser(ctx)
        own = self._options(ctx)
        for param in self.get_params(ctx):
            for name in param.opts:
                new = [synonym for synonym in OPTIONS.get(name, ()) if synonym not in own]
                if new:
                    action = "append" if getattr(param, "multiple", False) else "store"
                    parser.add_option(obj=param, opts=new, dest=param.name, action=action)  # type: ignore[arg-type]
        return parser

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if any(param.name == "url" for param in self.params):
            self._set_defaults(ctx, needed=not ctx.resilient_parsing and not {"-h", "--help"} & set(args))
        try:
            return super().parse_args(ctx, args)
        except typer.TyperException as error:
            option = getattr(error, "option_name", None)
            if option is not None and hasattr(error, "possibilities"):
                error.possibilities = None
                error.message = f"No such option: {shorten(option)}; {self._advice(ctx, option)}"
            elif "extra argument" in error.message and self.name in NO_ARGUMENT:
                error.message += f"; {NO_ARGUMENT[self.name]}"
            error.message = error.message or MISSING.get(self.name or "", "")
            error.message = plain(error.message.removeprefix("Value error, "))
            raise

    def format_help_text(self, ctx: Any, formatter: Any) -> None:
        format_examples(self, formatter)
        super().format_help_text(ctx, formatter)

    def _set_defaults(self, ctx: Any, *, needed: bool) -> None:
        """Take the defaults of --url and --tenant from the files, after option and environment variable."""
        try:
            config = load_config()
        except ConfigError as error:
            if needed:
                ctx.fail(str(error))
            return
        ctx.meta[_CONFIG] = config
        options = {"server": "url", "tenant": "tenant"}
        ctx.default_map = {
            option: str(config.settings[name].value) for name, option in options.items() if name in config.settings
        }

    def _options(self, ctx: Any) -> set[str]:
        return {
            name for param in self.get_params(ctx) for name in (*param.opts, *param.secondary_opts) if name[0] == "-"
        }

    def _advice(self, ctx: Any, option: str) -> str:
        if option == "-l" and "--name" not in self._options(ctx):  # A label for `ls`, the last job for `logs`.
            option = "--last"
        for names, advice in NO_OPTION.items():
            if option in names:
                return advice
        visible = sorted(name for name in self._options(ctx) if name.startswith("--"))
        close = [name for name in visible if len(option) > 3 and name.startswith(option)]
        close = close or get_close_matches(option, visible, cutoff=_CLOSE)
        return f"did you mean {' or '.join(close)}?" if close else "--help lists the options"


class SpecCommand(Command):
    """A command whose arguments are the command of a job, or one spec file."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, args if ctx.resilient_parsing else self._with_dashes(ctx, list(args)))

    def _with_dashes(self, ctx: Any, args: list[str]) -> list[str]:
        """Put `--` before the command, and `-f` before a spec file, where they are missing and no doubt is left.

        Options after the command are its own if Runway has none of them. They are Runway's if it has all of them and
        none came before the command.
        """
        parser = self.make_parser(ctx)
        parser.allow_interspersed_args = False
        try:
            given = parser.parse_args(list(args))[0]
        except typer.TyperException:
            return args  # The real parser says what is wrong.
        command: Sequence[str] = given.get("command") or ()
        at = len(args) - len(command)
        if not command or (at and args[at - 1] == "--"):
            return args
        if "file" not in given and _is_spec_file(command[0]):
            return self._with_dashes(ctx, [*args[:at], "-f", command[0], *args[at + 1 :]])
        options = [word for word in command[1:] if word.startswith("-") and len(word) > 1]
        own = [word for word in options if self._is_own(ctx, word)]
        if not own:
            return [*args[:at], "--", *args[at:]]
        if len(own) == len(options) and not at:
            return args
        ctx.fail(
            f"Put -- before the command, and options of runway before it: {own[0].split('=')[0]} could belong to "
            f"either. For example: {ctx.command_path} ... -- {shorten(shlex.join(command), 200)}"
        )
        raise AssertionError("fail raises")

    def _is_own(self, ctx: Any, word: str) -> bool:
        synonyms = {synonym for name in self._options(ctx) for synonym in OPTIONS.get(name, ())}
        known = self._options(ctx) | synonyms
        name = word.split("=")[0]
        return name in known or (not name.startswith("--") and name[:2] in known)


def _is_spec_file(word: str) -> bool:
    return word == "-" or word.endswith(_SPEC_SUFFIXES) or is_sbatch_file(Path(word))
