"""The contract of gateways, held by the beanstalk door."""

import re

import pytest
from dropr_gateway_beanstalk import BeanstalkGateway, Options

from dropr_core.testing import gateway_contract
from dropr_core.testing.gateway_contract import GatewayCase

JOB = re.compile(rb"RESERVED (\d+) (\d+)\r\n")


def jobs(answer):
    """(id, body) of every reserved job that is whole."""
    found, at = [], 0
    while head := JOB.search(answer, at):
        end = head.end() + int(head[2])
        if answer[end : end + 2] != b"\r\n":
            break
        found.append((head[1], answer[head.end() : end]))
        at = end + 2
    return found


class TestBeanstalk(gateway_contract.GatewayContract):
    """put, reserve, delete."""

    @pytest.fixture
    def gateway_case(self):
        return GatewayCase(
            make=lambda context: BeanstalkGateway(Options(), context.log),
            put=lambda channel, body: b"use %s\r\nput 9 0 600 %d\r\n%s\r\n" % (channel.encode(), len(body), body),
            stored=lambda answer: answer.count(b"INSERTED "),
            take=lambda channel: b"watch %s\r\nreserve\r\n" % channel.encode(),
            bodies=lambda answer: [body for _, body in jobs(answer)],
            done=lambda answer: b"delete %s\r\n" % jobs(answer)[-1][0],
        )
