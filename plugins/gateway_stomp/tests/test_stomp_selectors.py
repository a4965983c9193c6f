"""Selectors mean what the standard says; SQLite, which has the same three-valued logic, gives a second opinion."""

import sqlite3

import pytest
from dropr_gateway_stomp.selectors import MOST, BadSelector, compile_selector
from hypothesis import given
from hypothesis import strategies as st


@pytest.mark.parametrize(
    ("selector", "headers", "wanted"),
    [
        ("color = 'red'", {"color": "red"}, True),
        ("color <> 'red'", {}, False),  # unknown is not true
        ("NOT color = 'red'", {}, False),
        ("color IS NULL", {}, True),
        ("color is not null", {"color": ""}, True),
        ("weight > 2.5E0 AND weight <= 1e1", {"weight": "7"}, True),
        ("weight > 2", {"weight": "heavy"}, False),
        ("weight BETWEEN 1 AND 3 AND color LIKE 'r_d%'", {"weight": "2", "color": "reddish"}, True),
        ("weight NOT BETWEEN 1 AND 3", {"weight": "2"}, False),
        ("country IN ('UK', 'US')", {"country": "UK"}, True),
        ("country NOT IN ('UK', 'US')", {"country": "Peru"}, True),
        ("country NOT IN ('UK')", {}, False),
        ("name LIKE '\\_%' ESCAPE '\\'", {"name": "_x"}, True),
        ("name LIKE '\\_%' ESCAPE '\\'", {"name": "x"}, False),
        ("name NOT LIKE 'a%'", {"name": "b\nc"}, True),
        ("name = 'it''s'", {"name": "it's"}, True),
        ("ready = TRUE", {"ready": "true"}, True),
        ("ready", {"ready": "true"}, True),
        ("ready = FALSE", {"ready": "maybe"}, False),
        ("JMSPriority >= 6 OR age * 2 + 1 > 10 - 1", {"JMSPriority": "4", "age": "5"}, True),
        ("-a = 1 and +b = 0x1F", {"a": "-1", "b": "31"}, True),
        ("1 / a > 0", {"a": "0"}, False),
        ("ANDy = 'x' and nothing = 'y' and ORder = 'z'", {"ANDy": "x", "nothing": "y", "ORder": "z"}, True),
        ("\"content-type\" = 'text/plain'", {"content-type": "text/plain"}, True),
        ("convert_string_expressions:a > 1", {"a": "2"}, True),
        ("(a = 1 or a = 2) and not (b = 1)", {"a": "2", "b": "3"}, True),
        ("a = 1 or b = 1 and c = 1", {"a": "1", "b": "0", "c": "0"}, True),
        ("10 - 2 - 3 = 5 and 8 / 2 / 2 = 2", {}, True),
        ("a = 5L and b = 1.5d", {"a": "5", "b": "1.5"}, True),
        ("'a' < 'b'", {}, False),  # texts are only equal or not
    ],
)
def test_a_selector_wants(selector, headers, wanted):
    """Each operator, with headers that are there, are not there or are of the wrong kind."""
    assert compile_selector(selector)(headers) is wanted


@pytest.mark.parametrize(
    "selector",
    ["", "color", "a =", "a = 'x", "a = 1 b = 2", "a IN ()", "a LIKE 5", "(a = 1", "a == 1", 'a = "x',
     "a LIKE 'x!' ESCAPE '!'", "a LIKE 'x' ESCAPE 'yy'", "a = 1e999", "(" * 300 + "a" + ")" * 300 + " =",
     "NOT " * 1000 + "a", "a = '" + "x" * MOST + "'", "a LIKE '%a%a%a%a%a%a'", "-" * 3000 + "a = 1", "a = \0"],
)  # fmt: skip
def test_what_is_no_selector_is_refused(selector):
    """The error is ours and says where it is; nothing recurses without an end."""
    if selector == "color":
        assert compile_selector(selector)({}) is False  # a boolean header alone is one
        return
    with pytest.raises(BadSelector):
        compile_selector(selector)


def test_a_long_selector_is_no_deep_one():
    """As many alternatives as fit are evaluated without deep recursion."""
    wanted = compile_selector(" or ".join(f"a={number}" for number in range(380)))
    assert wanted({"a": "379"})
    assert not wanted({"a": "380"})


NAMES = ["t", "u", "n", "m"]
TEXTS = st.sampled_from(["", "a", "ab", "abc", "a%c", "x_y", "it's", "A"])
NUMBERS = st.integers(-5, 5)


def quoted(text):
    return "'" + text.replace("'", "''") + "'"


numeric = st.recursive(
    st.sampled_from(["n", "m"]) | NUMBERS.map(lambda n: str(n) if n >= 0 else f"({n})"),
    lambda inner: st.tuples(inner, st.sampled_from("+-*"), inner).map(lambda of: f"({of[0]} {of[1]} {of[2]})"),
    max_leaves=4,
)
textual = st.sampled_from(["t", "u"]) | TEXTS.map(quoted)
names = st.sampled_from(["t", "u"])
predicate = st.one_of(
    st.tuples(numeric, st.sampled_from(["=", "<>", "<", "<=", ">", ">="]), numeric).map(" ".join),
    st.tuples(textual, st.sampled_from(["=", "<>"]), textual).map(" ".join),
    st.tuples(numeric, st.sampled_from(["BETWEEN", "NOT BETWEEN"]), numeric, st.just("AND"), numeric).map(" ".join),
    st.tuples(names, st.sampled_from(["IN", "NOT IN"]), st.lists(TEXTS, min_size=1, max_size=3)).map(
        lambda of: f"{of[0]} {of[1]} ({', '.join(map(quoted, of[2]))})"
    ),
    st.tuples(names, st.sampled_from(["LIKE", "NOT LIKE"]), TEXTS).map(lambda of: f"{of[0]} {of[1]} {quoted(of[2])}"),
    st.tuples(names, TEXTS).map(lambda of: f"{of[0]} LIKE {quoted(of[1].replace('%', '!%'))} ESCAPE '!'"),
    st.tuples(st.sampled_from(NAMES), st.sampled_from(["IS NULL", "IS NOT NULL"])).map(" ".join),
)
condition = st.recursive(
    predicate,
    lambda inner: st.one_of(
        st.tuples(inner, st.sampled_from(["AND", "OR"]), inner).map(" ".join),
        inner.map(lambda one: f"NOT {one}"),
        inner.map(lambda one: f"({one})"),
    ),
    max_leaves=6,
)
HEADERS = st.fixed_dictionaries({}, optional={"t": TEXTS, "u": TEXTS, "n": NUMBERS.map(str), "m": NUMBERS.map(str)})


@pytest.fixture(scope="module")
def sqlite():
    """A database that compares texts as JMS does."""
    connection = sqlite3.connect(":memory:")
    connection.execute("PRAGMA case_sensitive_like = ON")
    yield connection
    connection.close()


@given(selector=condition, headers=HEADERS)
def test_it_means_what_sqlite_says(sqlite, selector, headers):
    """Precedence and unknown values are those of SQL."""
    row = {name: headers.get(name) for name in NAMES}
    row |= {name: int(row[name]) for name in ("n", "m") if row[name] is not None}
    table = "SELECT :t AS t, :u AS u, :n AS n, :m AS m"
    found = sqlite.execute(f"SELECT ({selector}) FROM ({table})", row).fetchone()[0]
    assert compile_selector(selector)(headers) is bool(found)


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=40))
def test_any_text_is_a_selector_or_refused(text):
    """No text makes anything but a function or BadSelector."""
    try:
        compile_selector(text)({"a": "1"})
    except BadSelector:
        pass
