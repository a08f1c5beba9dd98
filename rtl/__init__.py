"""Amaranth blocks of the streaming accelerator.

Each block has a bit-exact ``model()`` and, without elaborating anything, its legality check (the constructor),
``latency``, cycles and cost. Blocks know formats, not graphs. Streams are ready/valid, raster order, channels last.
"""
