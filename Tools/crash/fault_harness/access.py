"""Permissions, foreign names, links out of the store, users without rights."""

import os
import shlex
import stat
import subprocess
from pathlib import Path

from fault_harness.place import Place, expect, typed
from fault_harness.sample_store import copy_store, files_of
from fault_harness.shim import ENVIRONMENT, OK, Outcome

NOBODY = 65534


def paths_and_permissions(place: Place) -> int:
    """Modes whatever the umask, foreign names, links out of the store, users without rights."""
    previous = os.umask(0)
    try:
        store = place.folder / "open-umask"
        run = place.start("ingest", store, place.inputs.path("batch-0"), "--encoding", "f32")
        expect(run.wait(timeout=60) == OK, run.communicate())
        for arguments in (("fit", store, "--rank", "1", "--coordinates", "f32"), ("snapshot", store, "a")):
            run = place.start(*arguments)
            expect(run.wait(timeout=60) == OK, run.communicate())
    finally:
        os.umask(previous)
    for path in [store, *store.rglob("*")]:
        mode = stat.S_IMODE(path.stat().st_mode)
        expect(mode == (0o700 if path.is_dir() else 0o600), f"{path} has mode {mode:o}")
    names = ["../escape", "a/b", "x" * 129, "new\nline", "semi;colon", "sp ace", "ä", "/absolute"]
    cases = len(list(store.rglob("*")))
    before = files_of(store)
    for name in names:
        typed(place.server.run("snapshot", store, name), 3)
        cases += 1
    expect(files_of(store) == before, "a refused name has changed the store")
    for path in ("x" * 300, "missing/deeper", "\n"):
        typed(place.server.run("create", place.folder / path / "store"), 3, ENVIRONMENT)
        cases += 1
    cases += _links(place)
    cases += _foreign_users(place, store)
    return cases


def _links(place: Place) -> int:
    """A store through a link is the store; a link in the store leads no writer out of it."""
    store = place.new_store("linked-to")
    link = place.folder / "link"
    link.symlink_to(store)
    typed(place.server.run("verify", link), OK)
    typed(place.server.run("snapshot", link, "through-a-link"), OK)
    outside = place.folder / "outside"
    outside.write_bytes(b"not to be touched")
    # What a hostile owner of the folder could prepare: names that the next writer will use.
    numbers = sorted(int(path.stem, 16) for path in (store / "segments").iterdir())
    for number in range(numbers[-1] + 1, numbers[-1] + 4):
        (store / "tmp" / f"{number:016x}.segment").symlink_to(outside)
    typed(place.server.run("ingest", store, place.inputs.path("batch-3")), OK)
    expect(outside.read_bytes() == b"not to be touched", "a writer has followed a link out of the store")
    lock = store / "writer.lock"
    lock.unlink()
    lock.symlink_to(place.folder / "created-elsewhere")
    typed(place.server.run("snapshot", store, "locked"), ENVIRONMENT)
    expect(not (place.folder / "created-elsewhere").exists(), "a lock was made through a link")
    return 5


def _foreign_users(place: Place, store: Path) -> int:
    """Somebody without rights gets an error; somebody who may only read can read."""
    if os.getuid() != 0:
        return 0
    place.folder.chmod(0o755)

    def as_nobody(*arguments: object) -> Outcome:
        command = [str(place.binary), *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, user=NOBODY, group=NOBODY, check=False)
        return Outcome(done.returncode, done.stdout, done.stderr, shlex.join(command))

    for arguments in (("verify", store), ("inspect", store), ("snapshot", store, "b"), ("repair", store)):
        typed(as_nobody(*arguments), 3, ENVIRONMENT)
    readable = place.folder / "readable"
    copy_store(store, readable)
    for path in [readable, *readable.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    before = files_of(readable)
    # The table of readers is not writable for them: they must be told so, or read without it.
    typed(as_nobody("verify", readable), OK, ENVIRONMENT)
    for arguments in (("snapshot", readable, "b"), ("compact", readable), ("repair", readable)):
        typed(as_nobody(*arguments), ENVIRONMENT)
    expect(files_of(readable) == before, "a user without rights has changed the store")
    return 8
