"""Methods: a train vector and a query vector whose inner product is the score.

Sign, everywhere: h(z') is what should go down (the loss of the query). A positive score means that training on z
moved things the right way: one SGD step on z lowers h(z') by eta times the score, to first order.
"""
