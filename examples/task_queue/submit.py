"""Queues three tasks and prints what came of each."""

import dropr_core as dropr


def main() -> None:
    """One commit for all tasks; then each result as it is wanted."""
    files = ["cat.png", "dog.png", "broken.png"]
    with dropr.open("client.yaml") as node:
        with node.batch() as batch:
            for name in files:
                batch.send({"file": name}, channel="thumbnails")
        for name, task in zip(files, batch.sent, strict=True):
            try:
                print(f"thumbnail of {name}: {task.wait(timeout=60)['size']}")
            except dropr.DeliveryFailed as error:
                print(f"thumbnail of {name}: failed: {error}")


if __name__ == "__main__":
    main()
