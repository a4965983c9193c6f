"""What SQS answers when something is wrong: one exception, and the codes in which both protocols say it.

Owns `SqsError`. Must not know how an answer is written down.
"""

import types
from collections.abc import Mapping
from typing import Any

_LEGACY = "AWS.SimpleQueueService."

QUERY_CODES: Mapping[str, str] = types.MappingProxyType(
    {
        "QueueDoesNotExist": _LEGACY + "NonExistentQueue",
        "QueueNameExists": "QueueAlreadyExists",
        "InvalidSignatureException": "SignatureDoesNotMatch",
        "UnrecognizedClientException": "InvalidClientTokenId",
        "MissingAuthenticationTokenException": "MissingAuthenticationToken",
        "IncompleteSignatureException": "IncompleteSignature",
        "UnknownOperationException": "InvalidAction",
    }
    | {
        name: _LEGACY + name
        for name in (
            "MessageNotInflight", "EmptyBatchRequest", "TooManyEntriesInBatchRequest", "BatchEntryIdsNotDistinct",
            "BatchRequestTooLong", "InvalidBatchEntryId", "UnsupportedOperation",
        )
    }
)  # fmt: skip
"""The older protocol's code where it is another word than the error's shape; the newer one names both."""


class SqsError(Exception):
    """Refused, or failed: ``code`` is the name of the error's shape in Amazon's model."""

    def __init__(self, code: str, message: str, *, status: int = 400) -> None:
        super().__init__(message)
        self.code, self.message, self.status = code, message, status

    @property
    def query_code(self) -> str:
        """The code that the query protocol has for it."""
        return QUERY_CODES.get(self.code, self.code)

    @property
    def sender_fault(self) -> bool:
        """Whether trying the same again cannot help."""
        return self.status < 500


def invalid_parameter(message: str) -> SqsError:
    """A parameter has a value that it cannot have."""
    return SqsError("InvalidParameterValue", message)


def missing(name: str) -> SqsError:
    """A parameter that must be there is not."""
    return SqsError("MissingParameter", f"The request must contain the parameter {name}.")


def entry_error(own: str, error: Exception) -> dict[str, Any]:
    """How an answer to a batch tells what became of one entry; ``own`` is the entry's id."""
    found = error if isinstance(error, SqsError) else invalid_parameter(str(error))
    return {"Id": own, "SenderFault": found.sender_fault, "Code": found.query_code, "Message": found.message}
