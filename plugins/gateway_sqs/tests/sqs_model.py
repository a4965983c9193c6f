"""Amazon's own model of SQS, out of botocore, in both protocols: what its clients would write and read.

botocore ships the model of the JSON protocol only. What the older protocol calls lists and maps is added here, as
botocore had it until 2023.
"""

import copy
from functools import cache
from typing import Any

import botocore.parsers
import botocore.serialize
import botocore.session
from botocore.model import ServiceModel

_LISTS = {
    "AWSAccountIdList": "AWSAccountId", "ActionNameList": "ActionName", "AttributeNameList": "AttributeName",
    "MessageSystemAttributeList": "MessageSystemAttributeName", "MessageAttributeNameList": "MessageAttributeName",
    "TagKeyList": "TagKey", "QueueUrlList": "QueueUrl", "MessageList": "Message",
    "BatchResultErrorEntryList": "BatchResultErrorEntry",
    "ListMessageMoveTasksResultEntryList": "ListMessageMoveTasksResultEntry",
    **{f"{action}Batch{kind}EntryList": f"{action}Batch{kind}Entry"
       for action in ("SendMessage", "DeleteMessage", "ChangeMessageVisibility") for kind in ("Request", "Result")},
}  # fmt: skip
_MAPS = {
    "QueueAttributeMap": ("Attribute", "Name"), "MessageSystemAttributeMap": ("Attribute", "Name"),
    "MessageBodyAttributeMap": ("MessageAttribute", "Name"),
    "MessageBodySystemAttributeMap": ("MessageSystemAttribute", "Name"), "TagMap": ("Tag", "Key"),
}  # fmt: skip


def loader_of(session: Any) -> None:
    """Let clients of a boto3 session speak the older protocol."""
    loader = session._session.get_component("data_loader")
    load = loader.load_service_model

    def older(name: str, kind: str, api_version: str | None = None) -> Any:
        if (name, kind) == ("sqs", "service-2"):
            return description_of("query")
        return load(name, kind, api_version)

    loader.load_service_model = older


@cache
def description_of(protocol: str) -> dict[str, Any]:
    """The service in ``json`` or ``query``."""
    loaded: dict[str, Any] = (
        botocore.session.Session().get_component("data_loader").load_service_model("sqs", "service-2")
    )
    description = copy.deepcopy(dict(loaded))
    if protocol == "query":
        description["metadata"] |= {
            "protocol": "query", "protocols": ["query"], "xmlNamespace": "http://queue.amazonaws.com/doc/2012-11-05/",
        }  # fmt: skip
        for name, word in _LISTS.items():
            description["shapes"][name]["member"]["locationName"] = word
        for name, (_, key) in _MAPS.items():
            description["shapes"][name]["key"]["locationName"] = key
            description["shapes"][name]["value"]["locationName"] = "Value"
        for shape in description["shapes"].values():
            for member in shape.get("members", {}).values():
                if member["shape"] in _MAPS:
                    member["locationName"] = _MAPS[member["shape"]][0]
        description["shapes"]["QueueDoesNotExist"]["error"] = {"code": "AWS.SimpleQueueService.NonExistentQueue"}
        for operation in description["operations"].values():
            if "output" in operation:
                operation["output"]["resultWrapper"] = operation["name"] + "Result"
    return description


def model(protocol: str) -> ServiceModel:
    """The same, for botocore."""
    return ServiceModel(description_of(protocol), "sqs")


def serialized(protocol: str, action: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """What botocore would send."""
    name = {"json": "json", "query": "query"}[protocol]
    made: dict[str, Any] = botocore.serialize.create_serializer(name).serialize_to_request(
        parameters, model(protocol).operation_model(action)
    )
    return made


def parsed(protocol: str, action: str, status: int, headers: list[tuple[bytes, bytes]], body: bytes) -> dict[str, Any]:
    """What botocore would read."""
    response = {
        "status_code": status, "body": body,
        "headers": {name.decode(): value.decode() for name, value in headers},
    }  # fmt: skip
    shape = model(protocol).operation_model(action).output_shape
    result: dict[str, Any] = botocore.parsers.create_parser(protocol).parse(response, shape)
    result.pop("ResponseMetadata")
    return result
