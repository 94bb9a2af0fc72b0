"""ONNX: translates the traced program of a network, a jaxpr, operation by operation.

`graph` builds the nodes, `walk` goes through the jaxpr; `elementwise`, `shapes`, `products` and `reductions` have one
function for each primitive of JAX that the networks use; `model` makes and checks the file.
"""
