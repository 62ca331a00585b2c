"""Per-example gradients as factors: captured at the layers, never formed unless someone asks.

Layout of every tensor here: batch ``b`` first. For a parameter block of shape [m, n] (outputs by inputs, the
bias as one more input fixed to 1), the gradient of example i is a sum of outer products over its positions t:

    g_i = sum over t of left[i, t] right[i, t]',      left [b, t, m],  right [b, t, n]
"""
