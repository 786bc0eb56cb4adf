"""The tables of docs/reference.md, written from the configuration classes.

``python tools/reference.py docs/reference.md`` renews what stands between the two marks.
"""

import sys

from f2fd_core import config
from f2fd_core.cli import COMMANDS
from f2fd_core.config import aliases

BEGIN = "<!-- arguments: begin -->"
END = "<!-- arguments: end -->"
HEAD = (
    "| option | form label | original's name | default | published | unit |",
    "|---|---|---|---|---|---|",
)


def _shown(value):
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return " ".join(map(_shown, value))
    return "" if value == "" else f"{value:g}" if isinstance(value, float) else str(value)


def table(config_class):
    """One Markdown row for every parameter of a configuration class."""
    published = config_class.presets().get("published", {})
    rows = list(HEAD)
    for name, _, default, spec in config.parameters(config_class):
        option = name.upper() if spec.positional else config.flag(name)
        shown = _shown(default)
        if spec.zero and default == 0:
            shown += f" ({spec.zero})"
        sample = published.get(name)
        if config_class is config.DenoiseConfig:
            sample = config.PREDICTION_DEFAULTS["published"].get(name)
        original = f"`{spec.original}`" if spec.original else ""
        rows.append(
            f"| `{option}` | {spec.label} | {original} | {shown} | "
            f"{'' if sample is None else _shown(sample)} | {spec.unit} |"
        )
    return "\n".join(rows)


def names_before():
    """Markdown: what options and values were called in earlier versions."""
    rows = ["| option | earlier name |", "|---|---|"]
    rows += [
        f"| `{config.flag(now)}` | `{config.flag(before)}` |"
        for before, now in aliases.OPTIONS.items()
    ]
    for option, values in aliases.VALUES.items():
        rows += [
            f"| `{config.flag(option)} {now}` | `{before}` |" for before, now in values.items()
        ]
    return "\n".join(rows)


def section():
    """Everything between the marks."""
    parts = [BEGIN]
    for command, (config_class, _) in COMMANDS.items():
        summary = config_class.__doc__.splitlines()[0]
        parts += [f"## `f2fd {command}`", summary, table(config_class)]
    parts += [
        "## copick projects",
        "Of every command that takes tomograms.",
        table(config.ProjectConfig),
    ]
    parts += ["## Earlier names", "They go on working.", names_before()]
    return "\n\n".join([*parts, END])


def renewed(text):
    """A document with the part between the marks replaced by the current table."""
    before, rest = text.split(BEGIN)
    return before + section() + rest.split(END)[1]


if __name__ == "__main__":
    path = sys.argv[1]
    with open(path, encoding="utf-8") as stream:
        document = renewed(stream.read())
    with open(path, "w", encoding="utf-8") as stream:
        stream.write(document)
