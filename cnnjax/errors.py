"""Errors that are the user's to mend: one clear sentence each, exit code 2 on the command line."""


class CnnjaxError(Exception):
    """What was expected, what came, and what to do, in one sentence."""


class CnnjaxWarning(UserWarning):
    """Something that went otherwise than asked for, in one sentence, and did not stop the work."""


class ConfigError(CnnjaxError):
    """A config that cannot be run."""


class DataError(CnnjaxError):
    """Data that cannot be read, or that does not fit the config."""


class RunError(CnnjaxError):
    """A run folder that cannot be used, continued or read."""


class TrainingError(CnnjaxError):
    """Training that cannot go on."""


class WeightsError(CnnjaxError):
    """Weights that do not fit a network, or a file of weights that cannot be read."""


def first_line(error: BaseException) -> str:
    """Of what another library's error says, as a part of a sentence; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
