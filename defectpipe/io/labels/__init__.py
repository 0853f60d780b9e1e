"""Labels of experts, in the formats that they are made in, as one table an image."""

from defectpipe.io.labels.folder import LabelFolder, read_label_folder
from defectpipe.io.labels.recognise import LABEL_FORMATS, read_labels
from defectpipe.io.tables import LABEL_COLUMNS

__all__ = ["LABEL_COLUMNS", "LABEL_FORMATS", "LabelFolder", "read_label_folder", "read_labels"]
