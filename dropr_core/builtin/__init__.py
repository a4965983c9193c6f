"""The plugins in the box: serializers, handlers, the storage in memory, the loopback transport.

They come through the same entry points as everybody's and use nothing that a stranger's plugin could not use.
"""
