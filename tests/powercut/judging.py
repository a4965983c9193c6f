"""What is asked of every scene on the disks that a power cut can leave.

Owns the counting, and for storages of one file each how a scene is prepared and looked at. Must not know a scene.
"""

from powercut.acting import act, stage


def keeps_its_promises(name, disks, judge):
    """``judge(image, said)`` raises on none of the disks, and there are enough of them."""
    count = 0
    for image, said, about in disks:
        try:
            judge(image, said)
        except Exception as error:
            raise AssertionError(f"{name}: disk {about}, said {said}: {error!r}") from error
        count += 1
    assert count >= 10, "too few disks to mean anything"


def breaks_a_promise(disks, judge):
    """Whether ``judge(image, said)`` raises on some disk; all are looked at."""
    broken = 0
    for image, said, _about in disks:
        try:
            judge(image, said)
        except Exception:
            broken += 1
    return broken > 0


class Scenes:
    """Those of a module with `open_store` and `SCENES`."""

    def __init__(self, module):
        self._module = module

    def disks(self, directory, name, *switches):
        """Act a scene out; every disk that a power cut on the way leaves."""
        place = stage(directory)
        if name != "creating":
            store = self._module.open_store(place.backing)
            self._module.SCENES[name]().prepare(store)
            store.close()
        return act(place, self._module.__name__.rpartition(".")[2], name, *switches)

    def judge(self, name):
        """Open what is left, as after a reboot, and look."""

        def look(image, said):
            store = self._module.open_store(image)
            try:
                self._module.SCENES[name]().check(store, said)
            finally:
                store.close()

        return look
