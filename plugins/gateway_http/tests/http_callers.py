"""How tests send to a door and receive from it."""

JSON = {"Content-Type": "application/json"}


def send(door, body=b"x", channel="orders", **headers):
    answer = door.ask("POST", f"/channels/{channel}/messages", data=body,
                      headers={name.replace("_", "-"): value for name, value in headers.items()})  # fmt: skip
    assert answer.status_code in (200, 201), answer.text
    return answer


def receive(door, channel="orders", query="wait=30"):
    return door.ask("GET", f"/channels/{channel}/messages?{query}")
