"""Tokens of invitations, and the keys that are made of them."""

import pytest

from dropr_core.errors import UsageError
from dropr_core.protocol.invitation import from_token, join_key, new_invitation, pair_key, to_token

INVITATION = new_invitation("shop", "berlin", ("https://a:1", "zmq+tcp://a:2?curve=x"), ("ab" * 32, ""))


def test_a_token_says_what_was_put_in_also_out_of_a_mail():
    """Line breaks and blanks do not matter, and it needs no quotes in a shell."""
    token = to_token(INVITATION)
    assert from_token(token) == INVITATION
    assert from_token(f"  {token[:40]}\n{token[40:]} \n") == INVITATION
    assert token.replace("-", "").replace("_", "").isalnum()


def test_a_damaged_token_is_told_from_another_text_and_never_shown():
    """Each lost or changed letter is noticed before anybody is asked."""
    token = to_token(INVITATION)
    other = "_" if token[50] == "-" else "-"
    changed = (token[:50] + other + token[51:], token[:20] + "é" + token[21:])
    for broken in (token[:-1], token[:30] + token[31:], token + "A", *changed, "dropr-join-"):
        with pytest.raises(UsageError, match="damaged") as caught:
            from_token(broken)
        assert broken not in str(caught.value)
    with pytest.raises(UsageError, match="no token"):
        from_token("0123456789abcdef")


def test_keys_differ_by_secret_and_nonce_and_the_token_alone_does_not_say_them():
    """The key of the pair needs the nonce, which stands in no token; secrets are not shown."""
    other = new_invitation("shop", "berlin", ("https://a:1",))
    keys = {pair_key(join_key(one.secret), nonce) for one in (INVITATION, other) for nonce in (b"1" * 16, b"2" * 16)}
    assert len(keys) == 4
    assert all(len(key) == 43 for key in keys)
    assert INVITATION.secret.hex() not in repr(INVITATION)
    assert repr(INVITATION.secret) not in repr(INVITATION)
