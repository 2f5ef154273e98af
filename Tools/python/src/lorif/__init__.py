"""Writes and reads the files of lorif, a database for gradient factors."""
