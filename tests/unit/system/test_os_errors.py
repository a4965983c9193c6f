"""One table of errno → error, for stores and for large bodies."""

import errno
import io
import os
from pathlib import Path

import pytest

from dropr_core.bodies.store import BodyFiles
from dropr_core.errors import QueueFull, StoreReadOnly, WriteFailed
from dropr_core.model.names import IdMaker
from dropr_core.system.os_errors import store_error, wants_room

TABLE = {
    errno.ENOSPC: QueueFull, errno.EDQUOT: QueueFull, errno.EFBIG: QueueFull, errno.EMFILE: QueueFull,
    errno.ENFILE: QueueFull, errno.EACCES: StoreReadOnly, errno.EPERM: StoreReadOnly, errno.EROFS: StoreReadOnly,
    errno.EIO: WriteFailed, errno.ENOMEM: WriteFailed, errno.EBADF: WriteFailed,
}  # fmt: skip


@pytest.mark.parametrize("number", TABLE, ids=errno.errorcode.get)
def test_an_errno_means_the_same_everywhere(number):
    """Each errno has its error, with the path and the system's words."""
    error = store_error(OSError(number, os.strerror(number)), Path("/store/outbox.db"))
    assert type(error) is TABLE[number]
    assert "/store/outbox.db" in str(error)
    assert os.strerror(number) in str(error)


def test_the_reserve_is_kept_where_room_is_not_what_is_missing():
    """A disk that is full wants the reserve; want of file handles and the user's limits do not."""
    for number, wanted in ((errno.ENOSPC, True), (errno.EMFILE, False)):
        try:
            raise QueueFull("full") from OSError(number, "planted")
        except QueueFull as full:
            assert wants_room(full) is wanted
    assert not wants_room(QueueFull("over max_messages"))


@pytest.mark.parametrize("number", [errno.EMFILE, errno.EROFS, errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("call", ["open", "fsync"])
def test_a_body_that_cannot_be_written_says_what_a_store_would_say(monkeypatch, tmp_path, call, number):
    """Large bodies use the same table: want of file handles is QueueFull, which passes, and leaves nothing behind."""
    bodies = BodyFiles(tmp_path, 0)
    bodies.write(IdMaker()(), io.BytesIO(b"fine"))
    real = getattr(os, call)

    def planted(what, *args, **more):
        if call == "open" and not args[0] & os.O_CREAT:
            return real(what, *args, **more)
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(f"dropr_core.bodies.store.os.{call}", planted)
        with pytest.raises(TABLE[number]) as caught:
            bodies.write(IdMaker()(), io.BytesIO(b"never"))
    assert type(caught.value) is TABLE[number]
    assert len([path for path in tmp_path.rglob("*") if path.is_file()]) == 1
