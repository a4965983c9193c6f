"""What gateways of many short commands need, once.

A gateway may be written without any of it: the contract is `contracts/gateway.py` alone. It knows that contract and
nothing else of what happens behind a desk.
"""
