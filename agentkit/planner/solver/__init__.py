"""Choosing one offer for every node: plain arrays in, a choice and a certified bound out.

Only imported where a choice has to be weighed: it loads numpy, and HiGHS for small graphs.
"""
