"""Joining a node that shows a certificate of its own: pinned by the invitation, kept in a file, named in the YAML."""

import contextlib
import hashlib
import logging
import ssl

import pytest
from dropr_transport_curl import CurlTransport, Options, Tls

from dropr_core.api.node import Node
from dropr_core.config.node import load
from dropr_core.contracts.transport import Introduction, Trust
from dropr_core.delivery.joining import Joining
from dropr_core.errors import UsageError
from dropr_core.processes.server import make_dispatcher
from dropr_core.protocol.invitation import new_invitation
from dropr_core.serving.invitations import Invitations
from dropr_core.testing.transport_contract import Echo, request

WAIT = 30.0
LOG = logging.getLogger("test.curl")


def transport(certificates, **tls):
    return CurlTransport(Options(tls=Tls(**{word: certificates / name for word, name in tls.items()})), LOG)


@pytest.fixture
def listening(certificates):
    """A function that listens with the certificate of that name and gives its introduction."""
    with contextlib.ExitStack() as stack:

        def listen(name="server"):
            made = transport(certificates, cert=f"{name}.pem", key=f"{name}.key")
            stack.callback(made.close)
            return made.introduce(made.listen("https://127.0.0.1:0/dropr", Echo()).url)

        yield listen


def test_an_unknown_certificate_that_the_invitation_names_is_trusted_from_then_on(listening, certificates, tmp_path):
    """The fingerprint fits: the certificate itself goes into a file for tls.ca, and with it requests are answered."""
    introduction = listening()
    der = ssl.PEM_cert_to_DER_cert((certificates / "server.pem").read_text())
    assert introduction.certificate == hashlib.sha256(der).hexdigest()
    with contextlib.closing(transport(certificates)) as asking:
        trust = asking.trust(introduction)
    assert trust == Trust(("tls", "ca"), ssl.DER_cert_to_PEM_cert(der))
    pinned = tmp_path / "shop.pem"
    pinned.write_text(trust.content)
    with contextlib.closing(CurlTransport(Options(tls=Tls(ca=pinned)), LOG)) as asking:
        assert asking.trust(introduction) is None
        assert asking.connect(introduction.url).ask(request(5000), idle=WAIT).result(WAIT) == request(5000)


def test_what_is_trusted_already_needs_nothing(listening, certificates):
    """An authority that stands in tls.ca signs it, or the url is not encrypted at all: nothing is to be added."""
    with contextlib.closing(transport(certificates, ca="ca.pem")) as asking:
        assert asking.trust(listening()) is None
        assert asking.trust(Introduction("http://127.0.0.1:9")) is None


def test_another_certificate_or_a_setting_in_the_way_is_told(listening, certificates):
    """Not the one of the invitation; not made for this name; tls.ca names somebody else: each with what to do."""

    def told(introduction, **tls):
        with contextlib.closing(transport(certificates, **tls)) as asking, pytest.raises(UsageError) as caught:
            asking.trust(introduction)
        return str(caught.value)

    assert "another certificate than the one of the invitation" in told(Introduction(listening().url, "ab" * 32))
    assert "not made for this name" in told(listening("stranger"), ca="ca.pem")
    assert "does not sign; add it to that file" in told(listening(), ca="other.pem")


def test_a_node_joins_over_https(certificates, tmp_path):
    """The joining node's file names the certificate, and its transport reaches the inviter with what the file says."""
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    file = tmp_path / "a" / "dropr.yaml"
    file.write_text("node: shop\nlimits: {min_free: 0}\n")
    file.chmod(0o600)
    serving = transport(certificates, cert="server.pem", key="server.key")
    with Node.open(file) as node, contextlib.closing(serving):
        dispatcher = make_dispatcher(node.runtime, LOG)
        introduction = serving.introduce(serving.listen("https://127.0.0.1:0/dropr", dispatcher).url)
        invitation = new_invitation("shop", "berlin", (introduction.url,), (introduction.certificate,))
        Invitations(node.runtime.documents).add(invitation, 900.0, None)
        mine = tmp_path / "b" / "dropr.yaml"
        joined = Joining(mine, invitation, LOG).run(())
        dispatcher.close()
    config = load(mine)
    assert (joined.made, config.peers["shop"].url) == (True, introduction.url)
    assert config.transports["curl"]["tls"]["ca"] == "./shop.pem"
    assert (tmp_path / "b" / "shop.pem").read_text().strip() == (certificates / "server.pem").read_text().strip()
    assert load(file).peers["berlin"].keys == config.peers["shop"].keys
