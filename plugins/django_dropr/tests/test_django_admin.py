"""Dead letters in Django's admin: who may see and do what, and that nothing of a message becomes markup."""

import uuid

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth import get_user_model
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from support.django_shop import tasks as shop_tasks
from support.nodes import eventually

from dropr_core.contracts.storage import Selection

LIST = "admin:dropr_django_deadletter_changelist"
EVIL = "<script>alert(1)</script><b onclick='x'>\"&"


def client_of(*permissions, superuser=False, csrf=False):
    """A browser of somebody of the staff who has these permissions."""
    name = uuid.uuid4().hex
    user = get_user_model().objects.create(username=name, is_staff=True, is_superuser=superuser)
    user.user_permissions.set(Permission.objects.filter(codename__in=[f"{one}_deadletter" for one in permissions]))
    client = Client(enforce_csrf_checks=csrf)
    client.force_login(user)
    return client


@pytest.fixture
def letters(pair, handle):
    """Two that are buried here, one that the warehouse has buried, one that waits here."""
    shop_tasks.fail.using(queue_name="here").enqueue(EVIL)
    shop_tasks.fail.using(queue_name="here").enqueue("no stock of 7")
    handle("shop")
    away = shop_tasks.fail.enqueue("far away")
    handle("warehouse")
    shop = pair["shop"]
    eventually(lambda: shop.status(away.id).ended, what="the receipt came home")
    shop.put({"task": "x", "args": [EVIL]}, channel="here", delay="1h", headers={"note": EVIL})
    return shop


def tokens(shop, state):
    """What the check boxes of messages in a state say."""
    found = [f"inbox:{uuid.UUID(bytes=one.id)}" for one in shop.inbox.all(Selection()) if one.state == state]
    return found + [f"outbox:{uuid.UUID(bytes=one.id)}" for one in shop.outbox.all(Selection()) if one.state == state]


def test_the_list_shows_what_ended_badly(letters):
    """All dead letters of both halves with their reasons, searched by channel, peer, state, reason and id."""
    client = client_of("view")

    def shown(**query):
        answer = client.get(reverse(LIST), query)
        assert answer.status_code == 200
        return [one["last"] for one in answer.context_data["listing"].letters]

    everything = shown()
    assert len(everything) == 3
    assert "far away" in everything[2]
    assert len(shown(q="NO STOCK")) == 1
    assert len(shown(channel="here")) == 2
    assert len(shown(channel="no such!")) == 0
    assert len(shown(peer="warehouse")) == 1
    assert len(shown(state="failed")) == 1
    assert len(shown(state="buried", page="zwölf")) == 2
    assert shown(page=2) == []
    assert shown(state="waiting") == [""]
    (token,) = tokens(letters, "failed")
    assert len(shown(q=token.partition(":")[2][:20])) >= 1


def test_nothing_of_a_message_becomes_markup(letters):
    """Reasons, headers and bodies are shown as text, in the list and on the page of one message."""
    client = client_of("view")
    answer = client.get(reverse(LIST))
    assert b"alert(1)" in answer.content
    assert b"<script>alert(1)" not in answer.content
    for token in tokens(letters, "buried") + tokens(letters, "delayed"):
        page = client.get(reverse("admin:dropr_django_deadletter_change", args=[token.partition(":")[2]]))
        assert page.status_code == 200
        assert b"<script>alert(1)" not in page.content
        assert b"<b onclick" not in page.content


def test_one_message_with_its_body(letters):
    """The page of a message says all that is kept of it; one that is gone leads back to the list."""
    client = client_of("view")
    (token,) = tokens(letters, "failed")
    page = client.get(reverse("admin:dropr_django_deadletter_change", args=[token.partition(":")[2]])).content.decode()
    assert "Sent to warehouse: failed" in page
    assert "support.django_shop.tasks.fail" in page
    assert "<button" not in page.split('id="content-main"')[1]
    gone = client.get(reverse("admin:dropr_django_deadletter_change", args=[uuid.uuid4()]), follow=True)
    assert b"is not known here any more" in gone.content


def test_bodies_of_bytes_and_long_ones(letters):
    """What is no text is shown in hexadecimal, and of what is long its beginning."""
    from dropr_django.letters import look

    identity = letters.put("x" * 100_000, channel="here")
    found = look(letters, identity)
    assert (len(found["body"]), found["form"], found["cut"]) == (64 << 10, "text", True)
    identity = letters.put(b"\xff\x00" * 10, channel="bytes")
    found = look(letters, identity)
    assert (found["form"], found["body"][:5], found["cut"]) == ("hexadecimal", "ff 00", False)
    assert look(letters, "nonsense") is None


def test_sent_again(letters, handle, seen):
    """Buried messages are ready here, failed ones go to their peer again; each is in the admin's log."""
    client = client_of("view", "change")
    chosen = tokens(letters, "buried") + tokens(letters, "failed")
    before = LogEntry.objects.count()
    answer = client.post(reverse(LIST), {"action": "again", "letter": chosen}, follow=True)
    assert b"3 messages are sent again." in answer.content
    assert LogEntry.objects.count() == before + 3
    assert tokens(letters, "buried") == tokens(letters, "failed") == []
    assert handle("warehouse") == 2  # it fails again, as often as before
    assert handle("shop") == 2


def test_buried_and_wiped(letters):
    """What waits is buried with a reason; what is dead is forgotten; what lives is never wiped."""
    client = client_of("view", "change", "delete")
    waiting = tokens(letters, "delayed")
    answer = client.post(reverse(LIST), {"action": "wipe", "letter": waiting}, follow=True)
    assert b"Nothing was wiped" in answer.content
    assert tokens(letters, "delayed") == waiting
    client.post(reverse(LIST), {"action": "bury", "letter": waiting, "reason": "wrong customer"})
    assert [one.reason for one in letters.inbox.all(Selection()) if f"inbox:{uuid.UUID(bytes=one.id)}" in waiting] == [
        "wrong customer"
    ]
    everything = tokens(letters, "buried") + tokens(letters, "failed")
    answer = client.post(reverse(LIST), {"action": "wipe", "letter": everything}, follow=True)
    assert b"4 messages are wiped." in answer.content
    assert client.get(reverse(LIST)).context_data["listing"].letters == []


@pytest.mark.parametrize(
    ("permissions", "action", "status"),
    [((), None, 403), (("view",), "again", 403), (("view", "change"), "wipe", 403), (("view", "delete"), "bury", 403),
     (("view", "delete"), "wipe", 302), (("change",), None, 200)],
)  # fmt: skip
def test_permissions_are_those_of_the_model(letters, permissions, action, status):
    """View to look, change to send again and to bury, delete to wipe; who has none of them sees nothing."""
    client = client_of(*permissions)
    if action is None:
        assert client.get(reverse(LIST)).status_code == status
    else:
        chosen = tokens(letters, "buried")
        assert client.post(reverse(LIST), {"action": action, "letter": chosen}).status_code == status
        if status == 403:
            assert tokens(letters, "buried") == chosen


def test_strangers_and_forged_requests_get_nowhere(letters):
    """Without a login there is the login page, and without Django's token no button works."""
    assert "/login/" in Client().get(reverse(LIST)).headers["Location"]
    chosen = tokens(letters, "buried")
    forged = client_of(superuser=True, csrf=True).post(reverse(LIST), {"action": "wipe", "letter": chosen})
    assert forged.status_code == 403
    assert tokens(letters, "buried") == chosen


def test_a_press_without_a_choice(letters):
    """No message or no action chosen, or nonsense for one: nothing is done, and that is said."""
    client = client_of(superuser=True)
    for words, said in (
        ({"action": "again"}, "no message was chosen"),
        ({"letter": tokens(letters, "buried")}, "no action was chosen"),
        ({"action": "again", "letter": ["inbox:nonsense", "x:y", "outbox"]}, "Nothing was sent again"),
    ):
        assert said in client.post(reverse(LIST), words, follow=True).content.decode()
    assert b"<a href" in client.get(reverse("admin:index")).content


def test_it_stands_in_the_index_of_the_admin(letters):
    """People find it where they look: on the first page of the admin, without a button to add one."""
    page = client_of("view").get(reverse("admin:index")).content.decode()
    assert reverse(LIST) in page
    assert "deadletter/add" not in page


def test_a_store_that_fails_is_said(letters, monkeypatch):
    """A store that cannot be read gives a sentence on the page, no traceback."""
    from dropr_core.errors import WriteFailed

    def ill(*_args, **_more):
        raise WriteFailed("the disk is ill")

    monkeypatch.setattr("dropr_django.letters.find_messages", ill)
    monkeypatch.setattr("dropr_core.monitor.actions.kick", ill)
    client, chosen = client_of(superuser=True), [f"inbox:{uuid.uuid4()}"]
    assert b"The disk is ill" in client.get(reverse(LIST)).content
    assert b"The disk is ill" in client.post(reverse(LIST), {"action": "again", "letter": chosen}, follow=True).content
