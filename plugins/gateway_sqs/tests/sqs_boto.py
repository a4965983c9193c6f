"""boto3 at a door.

Owns the credentials of the tests and how a client is made. Must not know nodes.
"""

from support import clients

KEY, SECRET = "AKIDEXAMPLE", "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"
REGION = "us-east-1"


def connect(url, *, key=KEY, secret=SECRET, protocol="json", **config):
    """boto3's client at a door. ``protocol``: ``query`` is the older one, as botocore spoke it until 2023."""
    boto3 = clients.module("boto3")
    from botocore.config import Config
    from sqs_model import loader_of

    session = boto3.session.Session(aws_access_key_id=key, aws_secret_access_key=secret, region_name=REGION)
    if protocol == "query":
        loader_of(session)
    settings = {"retries": {"max_attempts": 1, "mode": "standard"}, "connect_timeout": 60, "read_timeout": 60} | config
    return session.client("sqs", endpoint_url=url, config=Config(**settings))
