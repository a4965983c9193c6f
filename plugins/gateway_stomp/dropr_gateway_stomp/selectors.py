"""JMS selectors: the subset of SQL-92 with which a subscription says which messages it wants.

Owns the grammar (parsed by lark) and the three-valued meaning: a comparison with a header that is not there is neither
true nor false but unknown, and only what is true is wanted. Knows nothing of frames and queues.
Source: Jakarta Messaging 3.1, "Message Selectors". All headers of STOMP are texts; a text that looks like a number
counts as that number where it is compared or computed with one.
"""

import functools
import math
import operator
import re
from collections.abc import Callable, Iterable, Mapping
from typing import TypeAlias, cast

from lark import Lark, Token, Transformer, Tree
from lark.exceptions import LarkError, UnexpectedInput, VisitError

MOST = 4096
"""Characters of a selector; the parser's work grows with it, and not faster."""
_DEEP = 64
"""How deep a selector may be nested: evaluation is recursive."""

GRAMMAR = r"""
?start: disjunction
?disjunction: conjunction | conjunction ("OR"i conjunction)+ -> or_
?conjunction: negation | negation ("AND"i negation)+ -> and_
?negation: predicate | "NOT"i negation -> not_
?predicate: sum
    | sum COMPARE sum -> compare
    | sum "BETWEEN"i sum "AND"i sum -> between
    | sum "NOT"i "BETWEEN"i sum "AND"i sum -> not_between
    | sum "IN"i "(" TEXT ("," TEXT)* ")" -> in_
    | sum "NOT"i "IN"i "(" TEXT ("," TEXT)* ")" -> not_in
    | sum "LIKE"i TEXT ["ESCAPE"i TEXT] -> like
    | sum "NOT"i "LIKE"i TEXT ["ESCAPE"i TEXT] -> not_like
    | sum "IS"i "NULL"i -> is_null
    | sum "IS"i "NOT"i "NULL"i -> is_not_null
?sum: product | product (SIGN product)+ -> arithmetic
?product: factor | factor (TIMES factor)+ -> arithmetic
?factor: atom | SIGN factor -> signed
?atom: name | TEXT -> text | NUMBER -> number | HEX -> hexadecimal
    | "TRUE"i -> true | "FALSE"i -> false | "(" disjunction ")"
name: NAME | QUOTED
SIGN: "+" | "-"
TIMES: "*" | "/"
COMPARE: "=" | "<>" | "<=" | ">=" | "<" | ">"
NAME: /[a-z_$][a-z0-9_$.]*/i
QUOTED: /"(?:[^"]|"")+"/
TEXT: /'(?:[^']|'')*'/
HEX.2: /0x[0-9a-f]+[l]?/i
NUMBER: /(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:e[+-]?[0-9]+)?[lfd]?/i
%import common.WS
%ignore WS
"""

Value: TypeAlias = str | float | bool | None
Headers: TypeAlias = Mapping[str, str]
_Node: TypeAlias = Callable[[Headers], Value]

_COMPARISONS: dict[str, Callable[[float, float], bool]] = {
    "<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip


class BadSelector(Exception):
    """It is none; ``str`` says where and why."""


@functools.cache
def _parser() -> Lark:
    return Lark(GRAMMAR, parser="lalr", maybe_placeholders=True)


def _number(value: Value) -> float | None:
    """What counts as a number; None is unknown."""
    if isinstance(value, bool):
        return None
    if isinstance(value, str):
        try:
            found = float(value)
        except ValueError:
            return None
        return found if math.isfinite(found) else None
    return value


def _truth(value: Value) -> bool | None:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.lower())
    return value if isinstance(value, bool) else None


def _compare(sign: str, left: Value, right: Value) -> bool | None:
    if left is None or right is None:
        return None
    if isinstance(left, bool) or isinstance(right, bool):
        one, other = _truth(left), _truth(right)
        if one is None or other is None or sign not in {"=", "<>"}:
            return None
        return (one == other) is (sign == "=")
    if isinstance(left, str) and isinstance(right, str) and sign in {"=", "<>"}:
        return (left == right) is (sign == "=")
    low, high = _number(left), _number(right)
    if low is None or high is None:
        return None
    return (low == high) is (sign == "=") if sign in {"=", "<>"} else _COMPARISONS[sign](low, high)


def _all(values: Iterable[bool | None]) -> bool | None:
    """AND: false if one is false, else unknown if one is."""
    result: bool | None = True
    for one in values:
        if one is False:
            return False
        if one is None:
            result = None
    return result


def _not(value: bool | None) -> bool | None:
    return None if value is None else not value


def _arithmetic(sign: str, left: Value, right: Value) -> float | None:
    one, other = _number(left), _number(right)
    if one is None or other is None:
        return None
    try:
        found = {"+": operator.add, "-": operator.sub, "*": operator.mul, "/": operator.truediv}[sign](one, other)
    except (ZeroDivisionError, OverflowError):
        return None
    return cast("float", found) if math.isfinite(found) else None


def _unquote(token: str) -> str:
    quote = token[0]
    return token[1:-1].replace(quote * 2, quote)


def _pattern(text: str, escape: str | None) -> re.Pattern[str]:
    if escape is not None and len(escape) != 1:
        raise BadSelector("ESCAPE must be one character")
    parts, rest = [], iter(text)
    for one in rest:
        if one == escape:
            following = next(rest, None)
            if following is None:
                raise BadSelector("a LIKE pattern ends with its escape character")
            parts.append(re.escape(following))
        elif one in "%_":
            # A run of % is one: else the matcher tries every way to share the text among them.
            if not (one == "%" and parts and parts[-1] == ".*?"):
                parts.append(".*?" if one == "%" else ".")
        else:
            parts.append(re.escape(one))
    if parts.count(".*?") > _LIKE_RUNS:
        raise BadSelector(f"a LIKE pattern may have {_LIKE_RUNS} '%'")
    return re.compile("".join(parts), re.DOTALL)


_LIKE_RUNS = 4
"""'%' in a LIKE pattern: what matching costs grows with the text's length to this power at worst."""


class _Compile(Transformer[Token, _Node]):
    """Each node becomes a function of the headers."""

    def name(self, of: list[Token]) -> _Node:
        token = str(of[0])
        key = _unquote(token) if token[0] == '"' else token
        return lambda headers: headers.get(key)

    def text(self, of: list[Token]) -> _Node:
        value = _unquote(of[0])
        return lambda _: value

    def number(self, of: list[Token]) -> _Node:
        value = float(of[0].rstrip("lLfFdD"))
        if not math.isfinite(value):
            raise BadSelector(f"{of[0][:40]} is too large a number")
        return lambda _: value

    def hexadecimal(self, of: list[Token]) -> _Node:
        value = float(int(of[0].rstrip("lL"), 16))
        return lambda _: value

    def true(self, _: list[_Node]) -> _Node:
        return lambda _: True

    def false(self, _: list[_Node]) -> _Node:
        return lambda _: False

    def or_(self, of: list[_Node]) -> _Node:
        # a OR b is NOT (NOT a AND NOT b), with unknown too.
        return lambda headers: _not(_all(_not(_truth(one(headers))) for one in of))

    def and_(self, of: list[_Node]) -> _Node:
        return lambda headers: _all(_truth(one(headers)) for one in of)

    def not_(self, of: list[_Node]) -> _Node:
        return lambda headers: _not(_truth(of[0](headers)))

    def compare(self, of: list[_Node]) -> _Node:
        left, sign, right = of[0], str(of[1]), of[2]
        return lambda headers: _compare(sign, left(headers), right(headers))

    def between(self, of: list[_Node]) -> _Node:
        value, low, high = of
        return lambda headers: _all(
            (_compare(">=", value(headers), low(headers)), _compare("<=", value(headers), high(headers)))
        )

    def not_between(self, of: list[_Node]) -> _Node:
        inside = self.between(of)
        return lambda headers: _not(cast("bool | None", inside(headers)))

    def in_(self, of: list[_Node]) -> _Node:
        value, texts = of[0], frozenset(_unquote(str(one)) for one in of[1:])

        def test(headers: Headers) -> Value:
            found = value(headers)
            return found in texts if isinstance(found, str) else None

        return test

    def not_in(self, of: list[_Node]) -> _Node:
        inside = self.in_(of)
        return lambda headers: _not(cast("bool | None", inside(headers)))

    def like(self, of: list[_Node]) -> _Node:
        escape = None if of[2] is None else _unquote(str(of[2]))
        value, pattern = of[0], _pattern(_unquote(str(of[1])), escape)

        def test(headers: Headers) -> Value:
            found = value(headers)
            return pattern.fullmatch(found) is not None if isinstance(found, str) else None

        return test

    def not_like(self, of: list[_Node]) -> _Node:
        alike = self.like(of)
        return lambda headers: _not(cast("bool | None", alike(headers)))

    def is_null(self, of: list[_Node]) -> _Node:
        return lambda headers: of[0](headers) is None

    def is_not_null(self, of: list[_Node]) -> _Node:
        return lambda headers: of[0](headers) is not None

    def arithmetic(self, of: list[_Node]) -> _Node:
        first, steps = of[0], [(str(sign), of[2 * at + 2]) for at, sign in enumerate(of[1::2])]

        def compute(headers: Headers) -> Value:
            found = first(headers)
            for sign, operand in steps:
                found = _arithmetic(sign, found, operand(headers))
            return found

        return compute

    def signed(self, of: list[_Node]) -> _Node:
        sign, operand = str(of[0]), of[1]
        return lambda headers: _arithmetic(sign, 0.0, operand(headers))


def _too_deep(tree: "_Node | Tree[Token]") -> bool:
    level, depth = [tree], 0
    while level and depth <= _DEEP:
        level = [child for one in level if isinstance(one, Tree) for child in one.children]  # type: ignore[misc]
        depth += 1
    return bool(level)


def compile_selector(text: str) -> Callable[[Headers], bool]:
    """A function that says whether a message with these headers is wanted. Raises BadSelector.

    ``headers``: names as a selector has them, among them JMSPriority, JMSMessageID and so on.
    """
    text = text.strip().removeprefix("convert_string_expressions:")  # ActiveMQ's; here it is always so
    if len(text) > MOST:
        raise BadSelector(f"a selector may have {MOST:,} characters")
    try:
        tree = _parser().parse(text)
        if _too_deep(tree):
            raise BadSelector(f"a selector may be nested {_DEEP} deep")
        node = _Compile().transform(tree)
    except UnexpectedInput as error:
        at = getattr(error, "column", -1)
        where = f"at character {at}" if isinstance(at, int) and at > 0 else "at its end"
        raise BadSelector(f"no selector: {text[:200]!r}, {where}") from None
    except VisitError as error:
        if isinstance(error.orig_exc, BadSelector):
            raise error.orig_exc from None
        raise BadSelector(f"no selector: {text[:200]!r}") from None
    except LarkError:
        raise BadSelector(f"no selector: {text[:200]!r}") from None
    return lambda headers: _truth(node(headers)) is True
