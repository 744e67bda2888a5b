"""Errors that are the user's to mend: one clear sentence each, exit code 2 on the command line."""

# Characters of one line of a message; what is longer quotes something that nobody will read.
_LONGEST = 1000


class CnnjaxError(Exception):
    """What was expected, what came, and what to do, in one sentence."""

    def __str__(self) -> str:
        # What is quoted from files may be of any length, and tell a terminal to do anything.
        return "\n".join(map(shown, super().__str__().split("\n")))


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


def shown(text: str) -> str:
    """A text as a part of one line: what does not print is escaped, and the middle of a very long one left out."""
    text = text if text.isprintable() else "".join(map(_escaped, text))
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 + 5 :]}"


def _escaped(character: str) -> str:
    return character if character.isprintable() else character.encode("unicode_escape").decode()


def first_line(error: BaseException) -> str:
    """Of what another library's error says, as a part of a sentence; its kind where it says nothing."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(". ")
