"""What the farm can do. A task is a function; what it returns goes home with the receipt."""

import dropr_core as dropr


def thumbnail(work: dropr.Work) -> dict[str, str]:
    """The size of the small picture. It may run more than once for one task: let it make the same thing each time."""
    name = work.value["file"]
    if name.startswith("broken"):
        raise dropr.Reject("not a picture")  # trying again cannot help
    if name.startswith("dog") and work.attempt == 1:
        raise ConnectionError("the disk of pictures is away")  # anything else is tried again
    return {"file": name, "size": "64x64"}
