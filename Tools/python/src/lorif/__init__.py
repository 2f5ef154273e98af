"""Writes and reads the files of lorif, a database for gradient factors.

- `lorif.batch`: factor batches, the files that go into a store.
- `lorif.segment`: a reader of segment files, written from the format's description alone (needs the extra `segment`).
"""
