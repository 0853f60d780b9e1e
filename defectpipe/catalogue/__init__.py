"""The searchable catalogue: images, acquisition, focus, loops, objects and embeddings of any number of folders."""

from defectpipe.catalogue.build import IndexReport, index_folders
from defectpipe.catalogue.catalogue import Catalogue
from defectpipe.catalogue.descriptor import DESCRIPTOR, Embedder
from defectpipe.catalogue.export import export_images
from defectpipe.catalogue.found import Found

__all__ = ["DESCRIPTOR", "Catalogue", "Embedder", "Found", "IndexReport", "export_images", "index_folders"]
