"""The errors that a user can act on: one clear sentence that names the file and what to do."""


class DefectpipeError(Exception):
    """Base of every error that is the input's or the user's, not a fault of the program."""


class MicrographError(DefectpipeError):
    """A file that should be a micrograph cannot be read as one."""


class LabelError(DefectpipeError):
    """A label file is broken, ambiguous, or does not fit its image."""


class ModelError(DefectpipeError):
    """A model folder is missing, incomplete, or does not match its card."""


class SettingsError(DefectpipeError):
    """A setting, parameter or configuration key is unknown or out of range."""


class RunFolderError(DefectpipeError):
    """A folder is not the output of a finished run, or lacks what is asked of it."""


class CatalogueError(DefectpipeError):
    """A catalogue cannot be read, built or searched as asked."""
