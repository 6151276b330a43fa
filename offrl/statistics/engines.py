"""The engines that compute estimates."""

from offrl.errors import unknown

ENGINES = ("offrl", "rliable")


def check_engine(name: str) -> str:
    """The name of an engine; InputError for an unknown one."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    return name
