"""What travels, as types."""

from pydantic import BaseModel


class Order(BaseModel):
    """What a customer wants."""

    sku: int
    count: int = 1


class Price(BaseModel):
    """What a thing costs from now on."""

    sku: int
    cents: int
