"""What `--module defectpipe` needs: Luigi's defaults from the packaged ``luigi.cfg``, and every task registered."""

from __future__ import annotations

import configparser
import difflib
import importlib
import warnings
from pathlib import Path

with warnings.catch_warnings():
    # Luigi asks for a setting that only the packaged configuration, which cannot be loaded before Luigi, gives it.
    warnings.filterwarnings("ignore", "\\s*Autoloading range tasks", DeprecationWarning)
    # Its exit statuses are part of what may be configured.
    import luigi.retcodes  # noqa: F401
from luigi.configuration import LuigiConfigParser, get_config
from luigi.task_register import Register

from defectpipe.errors import SettingsError

MODULES = (
    *("tasks.stages", "tasks.corrections", "tasks.tables", "tasks.agreement", "tasks.overlays", "tasks.exports"),
    *(
        "tasks.report",
        "tasks.runall",
        "tasks.focus",
        "tasks.recognise",
        "tasks.models",
        "tasks.check",
        "tasks.catalogue",
    ),
)


def register() -> None:
    """Apply the packaged defaults below the user's own configuration, and register the tasks."""
    config = get_config()
    if isinstance(config, LuigiConfigParser):
        for section, values in _packaged().items():
            for key, value in values.items():
                if not config.has_option(section, key):
                    config.set(section, key, value)
    for module in MODULES:
        importlib.import_module(module)


def refuse_unknown_keys() -> None:
    """Stop at a name in the configuration that no task and no part of Luigi knows: Luigi would pass over it.

    Sections that nobody here knows are left alone, they may be other programs', unless they look like a misspelt task.

    Raises
    ------
    SettingsError
        Names the section, the key and the closest known name.
    """
    config = get_config()
    known = _known_keys()
    for section in config.sections():
        if section not in known:
            if near := difflib.get_close_matches(section, known, 1, 0.8):
                raise SettingsError(f"luigi.cfg: nothing is called [{section}]; [{near[0]}] is.")
            continue
        defaults = config.defaults() if isinstance(config, configparser.ConfigParser) else {}
        for key in config[section]:
            if key not in defaults and key.replace("-", "_") not in known[section]:
                near = difflib.get_close_matches(key, known[section], 1)
                hint = f"; did you mean '{near[0]}'?" if near else f"; known: {', '.join(sorted(known[section]))}."
                raise SettingsError(f"luigi.cfg: [{section}] does not know '{key}'{hint}")


def _packaged() -> dict[str, dict[str, str]]:
    package = Path(importlib.import_module("defectpipe").__file__ or "").resolve().parent
    parser = configparser.ConfigParser(interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    # Inside the package when installed from a wheel, beside it in a checkout.
    parser.read([package.parent / "luigi.cfg", package / "luigi.cfg"], encoding="utf-8")
    return {section: dict(parser[section]) for section in parser.sections()}


def _known_keys() -> dict[str, set[str]]:
    known: dict[str, set[str]] = {}
    for family in Register.task_names():
        task = Register.get_task_cls(family)
        known.setdefault(family, set()).update(getattr(task, "ignore_unconsumed", ()))
        for name, parameter in task.get_params():
            known[family].add(name)
            if path := getattr(parameter, "_config_path", None):
                known.setdefault(path["section"], set()).add(path["name"].replace("-", "_"))
    return known
