"""Readers and writers: micrographs, labels, tables, files."""
