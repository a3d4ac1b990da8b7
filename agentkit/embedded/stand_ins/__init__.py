"""Stand-ins for other people's nodes: a llama.cpp core behind a thin front with their quirks.

They are labelled as what they are wherever they show: the wire is after LlamaEdge and after
Hyperbolic's published API, the machine is this one.
"""
