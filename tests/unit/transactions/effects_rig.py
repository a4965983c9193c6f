"""What tests look at after an effect, and what a process leaves that was killed after its commit."""

from dropr_core.contracts.storage import Selection
from dropr_core.transactions.inbox_table import Mark


def states(shop):
    """State of each message of the queue, as far as it is kept."""
    return [one.state for one in shop.node.inbox.all(Selection())]


def marks(shop):
    return len(shop.execute("SELECT id FROM dropr_inbox"))


def forget_the_settlement(shop, identity, channel="jobs", sender="berlin"):
    """What a process leaves that is killed after its commit: the mark, and a message that comes again."""
    mark = Mark("shop", identity, channel, sender)
    with shop.link.transaction():
        assert not shop.link.carry_out(shop.outbox.inbox.note(mark, b"42", "application/json")).before
